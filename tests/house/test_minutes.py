"""The table at the end of `make test`."""

from minutes import table


def environment(seconds: float, *steps: tuple[str, float], success: bool = True) -> dict[str, object]:
    test = [{"run_id": name, "elapsed": elapsed} for name, elapsed in steps]
    return {"result": {"duration": seconds, "success": success}, "test": test}


def test_minutes_of_what_ran():
    result = {
        "testenvs": {
            "core": environment(90, ("commands_pre[0]", 24), ("commands[0]", 24), ("commands[1]", 30)),
            "a-long-name-of-one": environment(30, success=False),
            "zoo": {},
        }
    }
    assert table(result).splitlines() == [
        "environment           install  commands  minutes",
        "core                      0.6       0.9      1.5",
        "a-long-name-of-one        0.5       0.0      0.5  failed",
        "sum                                          2.0",
    ]
