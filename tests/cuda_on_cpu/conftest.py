"""The emulated kernels for the tests of this folder; those of tests/extensions run on them too."""
from emulated import emulator  # noqa: F401 - a fixture
