"""`make test-faults`: runs the tests that are marked as faults, and prints what was tried and what came of it."""

import sys
from collections import Counter, defaultdict

import pytest


class FaultTable:
    """A pytest plugin that counts, for each class of faults, inputs and faults by what became of their tests."""

    def __init__(self) -> None:
        self._class_of: dict[str, str] = {}  # by the name of a test
        self._promised: dict[str, str] = {}  # by the name of a class
        self._counts: defaultdict[str, Counter] = defaultdict(Counter)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            if marker := item.get_closest_marker("fault"):
                what, outcome = marker.args
                self._class_of[item.nodeid], self._promised[what] = what, outcome

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self._class_of and (report.when == "call" or not report.passed):
            tried = dict(report.user_properties).get("tried", 1)
            self._counts[self._class_of[report.nodeid]][report.outcome] += tried

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        lines = ["| inputs and faults | tried | as promised | not as promised | promise |", "|---|---|---|---|---|"]
        for what, promised in self._promised.items():
            counts = self._counts[what]
            tried, failed, skipped = counts["passed"] + counts["failed"], counts["failed"], counts["skipped"]
            what += f" ({skipped} could not be tried here)" if skipped else ""
            lines.append(f"| {what} | {tried} | {counts['passed']} | {failed} | {promised} |")
        terminalreporter.write_line("\n" + "\n".join(lines))


if __name__ == "__main__":
    sys.exit(pytest.main(["-m", "fault", *sys.argv[1:]], plugins=[FaultTable()]))
