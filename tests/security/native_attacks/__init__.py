"""Programs that are run inside native sandboxes, and try what must not succeed there. None imports anything of ours."""
