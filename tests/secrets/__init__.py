# noqa: A005 - named after the package that is tested, and never imported by a bare name
