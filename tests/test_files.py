import pytest

from s2sr.files import atomic


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_atomic_keeps_the_old_file_when_writing_fails(tmp_path, failure):
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def interrupted():
        with atomic(path) as target:
            target.write_text("half of the n")
            assert path.read_text() == "old"
            raise failure

    with pytest.raises(failure):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_what_a_killed_program_left_is_replaced(tmp_path):
    left = tmp_path / "not" / "yet" / ".sr.tif.part"
    left.mkdir(parents=True)
    (left / "sr.tif").write_text("half of the o")
    with atomic(left.with_name("sr.tif")) as target:
        assert not target.exists()
        target.write_text("new")
    assert [p.name for p in left.parent.iterdir()] == ["sr.tif"]
    assert left.with_name("sr.tif").read_text() == "new"
