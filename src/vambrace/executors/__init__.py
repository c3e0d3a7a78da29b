"""Where units of work run: in this process or in others. Executors run values and know no method."""

from vambrace.executors.base import Executor, Outcome, resolve
from vambrace.executors.processes import ProcessExecutor
from vambrace.executors.serial import SerialExecutor

__all__ = ["Executor", "Outcome", "ProcessExecutor", "SerialExecutor", "resolve"]
