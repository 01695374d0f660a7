"""The folder that a report is kept in."""

from pathlib import Path

from migration_pipeline.report.folder import held


def test_a_link_laid_where_a_file_is_written_is_not_written_through(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "report"
    victim.write_text("mine", encoding="utf-8")
    folder.mkdir()
    (folder / ".page.partial").symlink_to(victim)
    (folder / "page").symlink_to(victim)
    with held(folder) as place:
        place.begin("page").write_text("theirs", encoding="utf-8")
        place.ended("page", "a page", 0)
        place.put_in_place()
    assert victim.read_text(encoding="utf-8") == "mine"
    assert ((folder / "page").is_symlink(), (folder / "page").read_text(encoding="utf-8")) == (False, "theirs")
