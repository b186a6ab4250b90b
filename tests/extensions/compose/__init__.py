"""Tests of ext.compose-ssh. Those in test_conformance, test_stack and test_troubles use real engines and front ends."""

import pytest

pytest.register_assert_rewrite("tests.extensions.compose.sandboxes")
