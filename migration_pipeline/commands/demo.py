"""`demo` and `sandbox`: the whole migration, or its servers alone, on this machine."""

import json
import os
import shlex
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from migration_pipeline.commands.dagster_instance import daemon, shipped, webserver
from migration_pipeline.commands.doctor import Health, examine
from migration_pipeline.commands.live_line import live_line
from migration_pipeline.commands.materialize import materialize
from migration_pipeline.commands.migrate import choose, migrate
from migration_pipeline.commands.proof import prove
from migration_pipeline.commands.status import Status
from migration_pipeline.commands.watch import watch
from migration_pipeline.core.alert_words import count
from migration_pipeline.core.errors import Fatal
from migration_pipeline.core.model import REMEDIES
from migration_pipeline.core.text import shortened
from migration_pipeline.defs.groups import MIGRATE
from migration_pipeline.sandbox import Sandbox
from migration_pipeline.sandbox.app import App, AppSize, AppStores, create_app, settings_toml
from migration_pipeline.sandbox.processes import SandboxUnavailable, free_ports
from migration_pipeline.settings import CONFIG_VARIABLE, Settings, load
from migration_pipeline.stores import open_ledger

Say = Callable[[str], None]
_UI_SECONDS = 120.0


def run_demo(*, profiles: int, workers: int, keep: bool, folder: Path | None, say: Say) -> bool:
    """Make an app, migrate it through Dagster, prove the result; return whether everything is as it must be.

    Raises:
        Fatal: the sandbox cannot run here.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        servers = _open(stack, folder, say)
        app = _make_app(servers, profiles, say)
        environment = prepare(servers, AppSize(profiles=profiles), workers)
        os.environ.update(environment)
        settings = load()
        _plan(settings, say)
        status = _migrate(settings, say)
        good = _tell_result(settings, app, status, say)
        materialize("dead_letters", "migration_report")
        say(
            f"The demo took {time.monotonic() - began:.0f} s. "
            + ("All as it must be." if good else "NOT as it must be.")
        )
        if keep:
            _keep_running(servers, environment, say)
        else:
            say("To look around in the Dagster UI: make demo KEEP=1")
    return good


def run_sandbox(*, folder: Path | None, profiles: int, say: Say) -> None:
    """Run the servers until Ctrl-C, and print what to export.

    Raises:
        Fatal: the sandbox cannot run here.
    """
    with ExitStack() as stack:
        servers = _open(stack, folder, say)
        size = AppSize(profiles=profiles or AppSize().profiles)
        if profiles:
            _make_app(servers, profiles, say)
        for name, value in prepare(servers, size, workers=2).items():
            say(f"export {name}={shlex.quote(value)}")
        say("# Ctrl-C ends the servers.")
        _wait()


def prepare(servers: Sandbox, size: AppSize, workers: int) -> dict[str, str]:
    """Write settings and a Dagster home into the sandbox's folder; return what to export."""
    stores = AppStores.on(servers)
    config, home = servers.folder / "migration.toml", servers.folder / "dagster"
    config.write_text(settings_toml(stores, size), encoding="utf-8")
    home.mkdir(exist_ok=True)
    shutil.copyfile(shipped("dagster.yaml"), home / "dagster.yaml")
    return {
        **servers.environment,
        CONFIG_VARIABLE: str(config),
        "MIGRATION_CONTROL__WORKERS": str(workers),
        "DAGSTER_HOME": str(home),
        "DAGSTER_COMPUTE_LOGS": str(home / "compute_logs"),
    }


def _open(stack: ExitStack, folder: Path | None, say: Say) -> Sandbox:
    say("Starting Postgres, Azurite, SeaweedFS and Firebase on 127.0.0.1 …")
    try:
        servers = stack.enter_context(Sandbox(folder))
    except SandboxUnavailable as error:
        raise Fatal(str(error), setting="sandbox") from None
    say(f"They run, with their files in {servers.folder} (Firestore: {servers.firestore_kind}).")
    return servers


def _make_app(servers: Sandbox, profiles: int, say: Say) -> App:
    with live_line(say) as tell:
        app = create_app(AppStores.on(servers), AppSize(profiles=profiles), tell)
    counts = app.counts
    what = f"{count(counts.profiles, 'profile')}, {count(counts.files, 'file')}, {counts.bytes / 1e6:,.0f} MB"
    say(f"Made an app of {what}.")
    return app


def _plan(settings: Settings, say: Say) -> None:
    materialize("profile_ranges")
    with closing(open_ledger(settings)) as ledger:
        ranges = ledger.ranges()
    say(f"Planned {count(len(ranges), 'range')}, of {count(max(item.profiles for item in ranges), 'profile')} at most.")
    for finding in examine(settings):
        if finding.health is Health.FAILURE:
            raise Fatal(finding.said, setting=finding.what, remedy=finding.remedy)


def _migrate(settings: Settings, say: Say) -> Status:
    keys = choose(settings, (), also_done=False).keys
    return watch(migrate(settings, keys, say), terminal=sys.stderr.isatty(), tell=say).status


def _tell_result(settings: Settings, app: App, status: Status, say: Say) -> bool:
    """Print what came of it, and compare with what was seeded."""
    say("")
    say(f"Migrated: {count(status.migrated, 'profile')}, {count(status.copied, 'file')}, {status.bytes / 1e6:,.0f} MB.")
    if status.seconds["transfer"]:
        workers = settings.control.workers
        rate = workers * status.copied / status.seconds["transfer"]
        say(f"The copy stage copied {rate:,.0f} files/s with {count(workers, 'worker')}. Every copy is verified:")
        say("  the bytes read have the digest that the source keeps, and S3 confirmed that it stored the same bytes.")
    say(f"Nothing to move: {count(status.nothing_to_move, 'profile')} (deleted, without files, or migrated before).")
    say(f"Waiting for dead letters: {count(status.waiting, 'profile')}.")
    with closing(open_ledger(settings)) as ledger:
        letters = ledger.overview.dead_letters()
    for item in letters:
        say(f"  {item.outcome}: {shortened(str(item.file))} of profile {item.profile_id}")
        say(f"      {REMEDIES[item.outcome]}")
    found = {(item.outcome.value, str(item.file)) for item in letters}
    seeded = {(outcome, name) for outcome, bad in app.bad_files.items() for _, name in bad}
    if found != seeded:
        say(f"  These are not the {len(seeded)} bad files that were seeded.")
    proof = prove(settings)
    say(
        f"Fetched every reference of all {proof.profiles} flagged profiles by HTTP GET: "
        f"{proof.references:,} references to {proof.files:,} files, "
        f"{len(proof.broken)} broken, {proof.unmoved} still at the source."
    )
    for url in proof.broken:
        say(f"  broken: {url}")
    expected = sum(end == "waiting" for end in app.expected.values())
    return found == seeded and proof.holds and status.waiting == expected


def _keep_running(servers: Sandbox, environment: dict[str, str], say: Say) -> None:
    port, log = free_ports(1)[0], servers.folder / "webserver.log"
    with daemon(servers.folder / "daemon.log"), webserver(port, log):
        url = f"http://127.0.0.1:{port}"
        say("")
        say("For commands in another terminal:")
        for name, value in environment.items():
            say(f"  export {name}={shlex.quote(value)}")
        say("")
        with live_line(say) as tell:
            tell("Starting the Dagster UI ...")
            _wait_for_assets(url, log)
        say(f"Open first: {url}/locations/migration_pipeline/asset-groups/{MIGRATE}")
        say("  Click `migrated_profiles`, then `Partitions`: a red range names its profiles that wait, and why.")
        say("  Click `dead_letters` or `migration_report`, then `Show Markdown`: what to do next, and how it went.")
        say("Ctrl-C ends everything.")
        _wait()


def _wait_for_assets(url: str, log: Path) -> None:
    """Wait until the UI knows the assets.

    Raises:
        Fatal: it does not answer.
    """
    deadline = time.monotonic() + _UI_SECONDS
    body, head = b'{"query": "{ assetNodes { id } }"}', {"Content-Type": "application/json"}
    while time.monotonic() < deadline:
        request = urllib.request.Request(f"{url}/graphql", body, head)  # noqa: S310 - our own webserver
        with suppress(OSError), urllib.request.urlopen(request, timeout=_UI_SECONDS) as answer:  # noqa: S310 - as above
            if json.load(answer)["data"]["assetNodes"]:
                return
        time.sleep(0.2)
    raise Fatal(f"the Dagster UI does not answer; its log is {log}.", setting="demo --keep")


def _wait() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return
