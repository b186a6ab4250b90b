"""Which extension and host serve a request, in which order, and why. Pure: facts in, decisions out (docs/routing.md).

`placement`: the hosts of a request. `needs`: what a profile requires. `decide`: candidates to decisions. `breaker`:
what was measured of a place, and whether it may be tried. `trail`: what became of the candidates, as they are tried."""

from sandboxer.routing.placement import LOCAL, Placement, place

__all__ = ["LOCAL", "Placement", "place"]
