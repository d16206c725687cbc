from rustllm._core import threads


def test_a_team_meets_at_every_barrier():
    for wanted in (1, 2, 3, 8, 2):
        ran, whole = threads.probe(wanted, 500)
        assert whole
        assert ran == wanted


def test_no_more_threads_are_started_than_were_wanted():
    threads.probe(2)
    assert threads.threads_started() <= 255
    assert threads.available_threads() >= 1
