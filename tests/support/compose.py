"""The services of docker/compose.yaml as processes: their commands and variables, with addresses of this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "docker"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
REFERENCE = re.compile(r"\$\{([A-Z0-9_]+)(:\?)?[^}]*\}")
_OF_THE_SYSTEM = ("HOME", "LANG", "PATH", "PYTHONPATH", "TMPDIR")


@dataclass(frozen=True)
class Compose:
    """Values of the two files of secrets, and what replaces parts of the commands and variables, as ports and hosts."""

    env: Mapping[str, str]
    pools: Mapping[str, str]
    replaced: Mapping[str, str]

    def variables(self, service: str) -> dict[str, str]:
        """Return the environment of a service's container, beside that of the system."""
        given = SERVICES[service].get("environment", {})
        files = self.pools if "pools.env" in SERVICES[service].get("env_file", []) else {}
        named = {name: self.env.get(name, "") if value is None else str(value) for name, value in given.items()}
        filled = {name: REFERENCE.sub(lambda found: self.env[found[1]], value) for name, value in named.items()}
        system = {name: os.environ[name] for name in _OF_THE_SYSTEM if name in os.environ}
        system["PATH"] = f"{Path(sys.executable).parent}:{system['PATH']}"
        return {**system, **files, **{name: self._here(value) for name, value in filled.items()}}

    def is_healthy(self, service: str) -> bool:
        """Run the health check of a service, as Docker does."""
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        words = [self._here(word).replace("$$", "$") for word in words]
        done = subprocess.run(words, env=self.variables(service), capture_output=True, timeout=20, check=False)
        return done.returncode == 0

    @contextmanager
    def running(self, service: str, folder: Path) -> Iterator[Path]:
        """Run a service until the end of the block, and end it as Docker does. Yield the file of its output."""
        words = [self._here(word) for word in SERVICES[service]["command"]]
        log = folder / f"{service}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(words, cwd=folder, env=self.variables(service), stdout=out, stderr=out)
            try:
                yield log
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        assert process.returncode == 0, log.read_text()

    def _here(self, text: str) -> str:
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        return text
