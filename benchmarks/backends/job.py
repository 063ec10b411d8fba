"""One run as a process: `lprl run` of a manifest whose volumes are folders of FOLDER, and beside it the tool that its episodes call."""

import sys
import threading
from pathlib import Path

import yaml

from lprl_cli.main import main as lprl
from lprl_fixtures.lookup_server import LookupServer


def main() -> int:
    folder, manifest = (Path(text) for text in sys.argv[1:])
    document = yaml.safe_load(manifest.read_text())
    line = ["run", str(manifest), "--state-dir", str(folder / "state"), "--volumes", str(folder), "--plain", "--no-report"]
    if "episode" not in document["spec"]:
        return lprl(line)
    with LookupServer((folder / "data" / document["spec"]["data"]["prompts"]["path"]).parent, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        document["spec"]["episode"]["tools"][0]["url"] = server.url
        manifest.write_text(yaml.safe_dump(document))
        try:
            return lprl(line)
        finally:
            server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
