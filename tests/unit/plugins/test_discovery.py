"""Finding plugins by entry point and by folder, without importing them."""

import sys
import zipfile

import pytest
from plugin_samples import write_plugin

from rustllm.plugins.discovery import Candidate, Problem, find_in_folder, find_installed

EXPLODE = "raise RuntimeError('imported')\n"


def install(site, name, version, package, manifest=True, group="rustllm.plugins", record=True):
    """Lay a distribution out as an installer does."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(
        f"[console_scripts]\nx = y:z\n\n[{group}]\n{name} = {package}\n"
    )
    if record:
        (info / "RECORD").write_text("")
    folder = site.joinpath(*package.split("."))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text(EXPLODE)
    if manifest:
        (folder / "rustllm-plugin.toml").write_text(f'api = "1"\nid = "{name}"\n')
    return folder


def test_an_entry_point_leads_to_the_manifest_and_nothing_is_imported(tmp_path):
    folder = install(tmp_path, "acme-tok", "1.5", "acme_tok")
    install(tmp_path, "other-thing", "1.0", "other_thing", group="pytest11")
    (found,) = find_installed([str(tmp_path)])
    assert isinstance(found, Candidate)
    assert (found.manifest.id, str(found.manifest.version)) == ("acme-tok", "1.5")
    assert (found.origin, found.root) == ("installed", folder)
    assert found.record is not None
    assert "acme_tok" not in sys.modules


def test_a_package_inside_a_package_is_found_without_importing_either(tmp_path):
    install(tmp_path, "acme-deep", "1.0", "acme_deep.inner.plugin")
    (found,) = find_installed([str(tmp_path)])
    assert found.manifest.id == "acme-deep"
    assert not any(name.startswith("acme_deep") for name in sys.modules)


def test_an_editable_install_is_found_through_the_import_system(tmp_path, monkeypatch):
    folder = install(tmp_path / "site", "acme-edit", "1.0", "acme_edit", manifest=False)
    source = tmp_path / "src"
    source.mkdir()
    (folder / "__init__.py").unlink()
    folder.rmdir()
    write_plugin(source / "acme_edit", "acme.edit", "").joinpath("__init__.py").write_text(EXPLODE)
    monkeypatch.syspath_prepend(source)
    (found,) = find_installed([str(tmp_path / "site")])
    assert found.root == source / "acme_edit"
    assert "acme_edit" not in sys.modules


def test_the_first_of_two_installed_versions_counts_as_it_does_for_import(tmp_path):
    install(tmp_path / "one", "acme", "1.0", "acme")
    install(tmp_path / "two", "acme", "2.0", "acme")
    (found,) = find_installed([str(tmp_path / "one"), str(tmp_path / "two")])
    assert str(found.manifest.version) == "1.0"


def test_an_entry_point_without_a_manifest_is_a_problem_that_is_named(tmp_path):
    install(tmp_path, "acme-bare", "1.0", "acme_bare", manifest=False)
    install(tmp_path, "acme-none", "1.0", "no_such_package_anywhere.sub", manifest=False)
    problems = list(find_installed([str(tmp_path)]))
    assert all(isinstance(problem, Problem) for problem in problems)
    assert "acme-bare 1.0" in str(problems[0])
    assert "holds no rustllm-plugin.toml" in str(problems[0])


def test_folders_that_are_not_there_and_damaged_metadata_are_survived(tmp_path):
    (tmp_path / "broken-1.0.dist-info").mkdir()
    (tmp_path / "broken-1.0.dist-info" / "entry_points.txt").write_bytes(
        b"[rustllm.plugins]\n= x\nnovalue\n\xff\xfe = y z\n[unclosed\n"
    )
    (tmp_path / "file.dist-info").write_text("not a folder")
    assert list(find_installed([str(tmp_path), str(tmp_path / "none"), ""])) == []


def test_distributions_in_zip_files_are_looked_at(tmp_path):
    archive = tmp_path / "lib.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("z-1.0.dist-info/METADATA", "Name: z\nVersion: 1.0\n")
        file.writestr("z-1.0.dist-info/entry_points.txt", "[rustllm.plugins]\nz = zpkg_x\n")
    (found,) = find_installed([str(archive)])
    assert isinstance(found, Problem)  # its manifest is not a file of its own, and that is said
    assert "zpkg_x" in str(found)


@pytest.mark.parametrize("direct", [True, False])
def test_a_folder_is_a_plugin_or_holds_plugins(tmp_path, direct):
    write_plugin(tmp_path / "b", "b", EXPLODE)
    write_plugin(tmp_path / "a", "a", EXPLODE)
    (tmp_path / "not a plugin").mkdir()
    if direct:
        (found,) = find_in_folder(tmp_path / "a")
        assert found.manifest.id == "a"
    else:
        assert [found.manifest.id for found in find_in_folder(tmp_path)] == ["a", "b"]


def test_a_folder_that_is_not_there_is_a_problem(tmp_path):
    (problem,) = find_in_folder(tmp_path / "none")
    assert "none" in str(problem)
