"""PlatformIO's reader of our test programs: they end with a line "ok", or name what was wrong and exit with 1."""

from platformio.public import TestCase, TestRunnerBase, TestStatus


class CustomTestRunner(TestRunnerBase):
    def on_testing_line_output(self, line):
        line = line.strip()
        if not line:
            return
        status = TestStatus.PASSED if line == "ok" else TestStatus.FAILED
        self.test_suite.add_case(TestCase(name=self.test_suite.test_name, status=status, stdout=line))
        self.test_suite.on_finish()
