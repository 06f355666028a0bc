"""One run of the flow in a file; the last line has its mapped tasks (success and tries of each) and their results."""

import importlib.util
import json
import sys

SHORTER = 60  # times


def main(path, folder, *sources):
    """Run the flow; its tasks wait a second for each minute."""
    spec = importlib.util.spec_from_file_location("prefect_flow", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tasks = []

    def note(task, task_run, state):
        tasks.append([state.is_completed(), task_run.run_count])

    delays = [seconds / SHORTER for seconds in module.answer.retry_delay_seconds]
    module.answer = module.answer.with_options(retry_delay_seconds=delays, on_completion=[note], on_failure=[note])
    state = module.answer_files(folder, sources, return_state=True)
    print(json.dumps({"tasks": sorted(tasks), "results": state.result() if state.is_completed() else []}))


main(*sys.argv[1:])
