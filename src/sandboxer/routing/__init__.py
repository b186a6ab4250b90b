"""Which extension and host serve a request, in which order, and why. Pure: facts in, decisions out (docs/routing.md).

`placement`: the hosts of a request. `requirements`: what a profile requires. `selection`: candidates to decisions.
`circuit_breaker`: what was measured of a backend, and whether it may be tried. `decisions`: what became of the
candidates, as they are tried."""

from sandboxer.routing.placement import LOCAL, Placement, place

__all__ = ["LOCAL", "Placement", "place"]
