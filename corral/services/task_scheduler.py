"""A task of Windows' task scheduler, which starts at logon, or with the machine.

Source: schtasks.exe, and the Task Scheduler's XML schema (taskType). A task cannot have variables of its own, and sees
those of its user.
"""

from pathlib import Path
from xml.sax.saxutils import escape

from corral.services.recipe import MARK, NAME, Definition, Recipe, step


def recipe(definition: Definition, folder: Path) -> Recipe:
    """`folder`: where the task's description is kept, which the scheduler reads once."""
    file = folder / f"{NAME}-task.xml"
    names = ", ".join(sorted(definition.environment))
    hint = f"a task has no variables of its own: set {names} with `setx`, or in corral.toml"
    return Recipe(
        manager="Windows' task scheduler",
        file=file,
        data=_task(definition).encode("utf-16"),
        start=(
            step("schtasks", "/Create", "/TN", NAME, "/XML", str(file), "/F"),
            step("schtasks", "/End", "/TN", NAME, may_fail=True),
            step("schtasks", "/Run", "/TN", NAME),
        ),
        stop=(
            step("schtasks", "/End", "/TN", NAME, may_fail=True),
            step("schtasks", "/Delete", "/TN", NAME, "/F", may_fail=True),
        ),
        forget=(),
        # the scheduler's table is translated, its numbers are not: 267009 is a task that runs
        running=step(
            "powershell",
            "-NoProfile",
            "-Command",
            f"if ((Get-ScheduledTaskInfo -TaskName {NAME}).LastTaskResult -ne 267009) {{ exit 1 }}",
        ),
        log="the server's lines are not kept; `corral serve` in a window shows them",
        remarks=(hint,) if names else (),
    )


def _task(definition: Definition) -> str:
    program, *arguments = definition.command
    words = " ".join(f'"{word}"' if " " in word else word for word in arguments)
    trigger = "BootTrigger" if definition.user else "LogonTrigger"
    who = f"<UserId>{escape(definition.user)}</UserId><LogonType>S4U</LogonType>" if definition.user else ""
    kind = who or "<LogonType>InteractiveToken</LogonType>"
    return f"""<?xml version="1.0" encoding="UTF-16"?>
<!-- {MARK} -->
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Description>Corral, large language models on this machine</Description></RegistrationInfo>
  <Triggers><{trigger}><Enabled>true</Enabled></{trigger}></Triggers>
  <Principals><Principal id="Author">{kind}<RunLevel>LeastPrivilege</RunLevel></Principal></Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure><Interval>PT1M</Interval><Count>999</Count></RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec><Command>{escape(program)}</Command><Arguments>{escape(words)}</Arguments></Exec>
  </Actions>
</Task>
"""
