"""pytest in a process that gevent has patched before anything else was imported."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - patched first

import pytest  # noqa: E402


class SaysWhatIsPatched:
    """Shows in the output that these tests did run on greenlets."""

    def pytest_report_header(self):
        """A line at the top."""
        names = ("socket", "ssl", "threading", "time", "queue", "select")
        return f"patched by gevent: {all(monkey.is_module_patched(name) for name in names)}"


sys.exit(pytest.main(sys.argv[1:], plugins=[SaysWhatIsPatched()]))
