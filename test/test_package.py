"""What holds the package together: who may import whom, how long things get, and the files that no other test reads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sam2_ros"
SOURCES = sorted(PACKAGE.rglob("*.py"))
LENGTH_CHECKED = [*SOURCES, *sorted((ROOT / "test").rglob("*.py"))]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.py"))
INTERFACES = sorted([*(ROOT / "msg").glob("*.msg"), *(ROOT / "srv").glob("*.srv")])

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_CODE_LINES = 50  # of a function of the package, without its docstring

# Modules that every layer may use: they import nothing beside the standard library.
SHARED_MODULES = ("heap", "log_throttle", "regular_files", "resources", "saved_values", "torch_files")

# Which other layers a layer may import. The layers that do not depend on ROS, or on files and cameras, can only be used
# and tested without them as long as this holds. `commands` starts processes of `node` and does not import it.
ALLOWED_LAYERS = {
    "model": set(),
    "tracking": {"model"},
    "session": {"model", "tracking"},
    "image_io": set(),
    "perception": {"session", "tracking", "image_io"},
    "bringup": {"session"},
    "node": {"perception", "session", "tracking", "model", "image_io"},
    "data": {"image_io"},
    "client": {"node", "tracking"},
    "demo": {"client", "node", "image_io", "tracking", "data", "demo.tabletop"},
    "demo.tabletop": set(),
    "annotate": {"model", "tracking", "data", "image_io"},
    "evaluation": {"model", "tracking", "data", "demo.tabletop", "annotate"},
    "training": {"model", "tracking", "data", "evaluation"},
    "export": {"model", "tracking"},
    "commands": {"model", "tracking", "data", "evaluation", "training", "export", "image_io", "annotate"},
    "cli": {"commands"},
    "__init__": {"tracking"},
    **{name: set() for name in SHARED_MODULES},
}
# Layers that may import ROS and its messages.
ROS_LAYERS = {"node", "client", "demo"}
# Layers of which every module is used by several others, or is named in SUBJECTS.
RUNNING_LAYERS = {"tracking", "session", "image_io", "perception", "node", "client", "demo", "demo.tabletop"}
# Single modules that `commands` reads beside whole layers: the node's defaults, and what a demo's source may be.
MODULES_FOR_COMMANDS = (
    "sam2_ros.session.parameters",
    "sam2_ros.demo.stream",
)
# The one module of `tracking` that training clips share with it: so that windows cannot differ. It imports nothing.
MODULES_FOR_DATA = ("sam2_ros.tracking.zoom.window",)
# Layers whose third-party imports are limited to these. (ROS is only for `node`, see below.)
ALLOWED_THIRD_PARTY = {
    "model": {"torch", "safetensors", "huggingface_hub"},  # the latter two extras, imported where they are used
    "tracking": {"torch", "numpy", "cv2", "onnxruntime", "openvino"},  # likewise
    "session": {"torch", "numpy"},
    "image_io": {"numpy", "cv2"},
    "perception": {"numpy", "cv2"},
    "bringup": {"yaml"},
    "data": {"numpy", "cv2", "rosbags", "av"},
    "demo.tabletop": {"numpy", "cv2"},
    "annotate": {"torch", "numpy", "cv2", "yaml", "starlette", "uvicorn", "ray"},  # the last three extras
    "cli": set(),
    **{name: set() for name in SHARED_MODULES},
}
PACKAGE_OF_MODULE = {"tf2_ros": "tf2_ros_py"}  # where a ROS package's Python is another package
ROS_MODULES = {
    *("rclpy", "ament_index_python", "launch", "launch_ros", "cv_bridge", "message_filters", "tf2_ros"),
    *("builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs", "rcl_interfaces", "sensor_msgs"),
    *("std_msgs", "std_srvs", "vision_msgs", "visualization_msgs", "sam2_ros.msg", "sam2_ros.srv"),
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def layer_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return "demo.tabletop" if parts[:2] == ("demo", "tabletop") else _layer_name(parts[0].removesuffix(".py"))


def _layer_name(name: str) -> str:
    """The client is two modules of one layer."""
    return "client" if name == "client_results" else name


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every imported module of a file, wherever in it, with its line: `from a import b` gives "a.b"."""
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            yield from ((statement.lineno, alias.name) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = list(path.relative_to(ROOT).parts[: -statement.level]) if statement.level else []
            module = ".".join([*base, statement.module] if statement.module else base)
            yield from ((statement.lineno, f"{module}.{alias.name}") for alias in statement.names)


def import_complaint(path: Path, module: str) -> str | None:
    """Why this file must not import that module; None when it may."""
    layer = layer_of(path)
    top, *rest = module.split(".")
    if layer not in ROS_LAYERS and ({top, ".".join([top, *rest[:1]])} & ROS_MODULES):
        return "only node/, client and demo/ may import ROS and its messages: everything else runs without ROS"
    if layer == "commands" and module.startswith(MODULES_FOR_COMMANDS):
        return None
    if layer == "data" and module.startswith(MODULES_FOR_DATA):
        return None
    if top == "sam2_ros":
        imported = _layer_name(rest[0]) if rest else "__init__"
        imported = "demo.tabletop" if rest[:2] == ["demo", "tabletop"] else imported
        imported = "tracking" if imported in ("load_tracker", "load_image_predictor") else imported
        may = (
            ALLOWED_LAYERS[layer]
            | {*SHARED_MODULES, "__init__", layer}
            | ({"msg", "srv"} if layer in ROS_LAYERS else set())
        )
        if imported not in may:
            return (
                f"{layer} may import {', '.join(sorted(may))} of this package: each layer works without those above it"
            )
    elif top not in sys.stdlib_module_names and layer in ALLOWED_THIRD_PARTY and top not in ALLOWED_THIRD_PARTY[layer]:
        allowed = ", ".join(sorted(ALLOWED_THIRD_PARTY[layer])) or "nothing"
        return (
            f"{layer} may import {allowed} beside the standard library, so that it stays easy to install and to reuse"
        )
    return None


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_in_one_direction(path: Path) -> None:
    assert layer_of(path) in ALLOWED_LAYERS, f"{relative(path)}: new layer; say in ALLOWED_LAYERS what it may import"
    complaints = [
        f"{relative(path)}:{line}: imports {module}: {complaint}"
        for line, module in imports_of(path)
        if (complaint := import_complaint(path, module))
    ]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("model/hiera.py", "numpy"),
        ("model/hiera.py", "sam2_ros.tracking.types"),
        ("tracking/tracker.py", "sensor_msgs.msg.Image"),
        ("session/session.py", "sensor_msgs.msg.Image"),
        ("session/session.py", "sam2_ros.perception.depth"),
        ("perception/depth.py", "sam2_ros.node.conversions"),
        ("image_io/encodings.py", "cv_bridge.CvBridge"),
        ("data/files/video.py", "sam2_ros.tracking.types"),
        ("data/clips/window.py", "sam2_ros.tracking.zoom.views"),
        ("data/files/video.py", "PIL.Image"),
        ("demo/tabletop/scene.py", "rclpy"),
        ("evaluation/vos.py", "sam2_ros.training.train"),
        ("evaluation/vos.py", "sam2_ros.msg.Prompt"),
        ("node/sam2_node.py", "sam2_ros.training.train"),
        ("commands/demo.py", "sam2_ros.node.sam2_node"),
    ],
)
def test_the_import_rule_refuses(file: str, module: str) -> None:
    assert import_complaint(PACKAGE / file, module)


def test_the_module_that_data_shares_with_tracking_imports_nothing_of_the_package() -> None:
    code = f"import sys, {', '.join(MODULES_FOR_DATA)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & {"torch", "numpy", "cv2"}


def test_the_modules_that_the_command_line_reads_need_no_ros() -> None:
    code = f"import sys, {', '.join(MODULES_FOR_COMMANDS)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & (ROS_MODULES)


# Modules of the running system that only one other module imports, and why each is a subject of its own. Anything else
# that only one module needs belongs into that module, where its reader looks for it.
SUBJECTS = {
    "client": "for other people's nodes; within the package only the demo uses it",
    "demo.camera": "a process of its own",
    "demo.report": "what the demo measures, tested without ROS",
    "demo.tabletop.mug": "one of the rendered shapes; with the others it would be too long a file",
    "demo.tabletop.room": "the rendered scene without its objects",
    "node.clicks": "what clicks mean, tested with a stand-in for TF",
    "node.graph": "what is wrong with neighbours in the ROS graph, tested with nodes of its own",
    "node.optional.other_encodings": "cv_bridge, which not every installation has",
    "node.ros_parameters": "one side of the node, which sam2_node wires",
    "node.services": "one side of the node, which sam2_node wires",
    "node.subscriptions": "one side of the node, which sam2_node wires",
    "perception.detections": "what boxes mean, tested without ROS; its subscription is in node/",
    "session.results": "the border between the model thread and the publishing thread",
    "tracking.runtime.free_cores": "what other processes leave free, tested without a network",
    "tracking.rules.crowds": "a rule of its own, on plain arrays",
    "tracking.rules.rivals": "a rule of its own, on plain arrays",
    "tracking.results": "what callers see",
}


def importers() -> dict[str, set[str]]:
    """For each module of the running system (without the package's name) the modules that import it."""
    names = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in SOURCES}
    found: dict[str, set[str]] = {
        name: set() for name, path in names.items() if layer_of(path) in RUNNING_LAYERS and path.name != "__init__.py"
    }
    for name, path in names.items():
        for _, module in imports_of(path):
            for each in (module, module.rpartition(".")[0]):
                if each.removeprefix("sam2_ros.") in found and each.startswith("sam2_ros."):
                    found[each.removeprefix("sam2_ros.")].add(name)
    return found


def test_a_module_that_only_one_other_imports_is_a_subject_of_its_own() -> None:
    alone = {name: users for name, users in importers().items() if len(users) == 1}
    assert len(importers()) > 30, "the modules were not found"
    complaints = [
        f"{name}: only {next(iter(users))} imports it: merge the two, or say in SUBJECTS why it is a subject of its own"
        for name, users in sorted(alone.items())
        if name not in SUBJECTS
    ]
    complaints += [
        f"{name}: in SUBJECTS, but not imported by one module only" for name in sorted(SUBJECTS.keys() - alone)
    ]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("path", LENGTH_CHECKED, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= MAX_FILE_LINES, (
        f"{relative(path)} has {lines} lines, at most {MAX_FILE_LINES}: split it by what changes together"
    )
    long_functions = [
        f"{relative(path)}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}: name its steps"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not long_functions, "\n".join(long_functions)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_the_code_of_a_function_fits_on_a_screen(path: Path) -> None:
    long_functions = [
        f"{relative(path)}:{node.lineno}: {node.name} has {length} lines beside its docstring, at most {MAX_CODE_LINES}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1 - _docstring_lines(node)) > MAX_CODE_LINES
    ]
    assert not long_functions, "\n".join(long_functions)


def _docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    return (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) is not None else 0


def field_lines(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line number, text and "is commented" of each field and constant of an interface file.

    A comment stands at the end of the line or in the line above.
    """
    previous = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        declaration, _, comment = line.partition("#")
        if declaration.strip() not in ("", "---"):
            yield number, declaration.strip(), bool(comment.strip()) or previous.startswith("#")
        previous = line


@pytest.mark.parametrize("path", INTERFACES, ids=relative)
def test_every_field_of_the_messages_is_explained(path: Path) -> None:
    bare = [f"{relative(path)}:{number}: {text}" for number, text, commented in field_lines(path) if not commented]
    assert not bare, "say what it means, its unit and its frame:\n" + "\n".join(bare)


def package_xml() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def declared_dependencies() -> set[str]:
    return {str(tag.text) for tag in package_xml() if tag.tag.endswith("depend")}


def test_package_xml_and_pyproject_tell_the_same_story() -> None:
    root = package_xml()
    assert root.findtext("name") == "sam2_ros"
    assert root.findtext("license") == "Apache-2.0"
    assert root.findtext("export/build_type") == "ament_cmake"
    assert root.findtext("member_of_group") == "rosidl_interface_packages"
    for file in ("pyproject.toml", "setup.py"):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf'^\s*version ?= ?"{root.findtext("version")}"', text, re.MULTILINE), (
            f"{file}: another version"
        )


def test_message_packages_of_our_messages_are_declared() -> None:
    used = {
        match.group(1)
        for path in INTERFACES
        for _, text, _ in field_lines(path)
        if (match := re.match(r"(\w+)/\w+", text))
    }
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    found_by_cmake = set(re.findall(r"find_package\((\w+) REQUIRED\)", cmake))
    assert used, "no message of another package found in ours: the pattern is wrong"
    assert used <= declared_dependencies(), "add <depend> to package.xml"
    assert used <= found_by_cmake, "add find_package to CMakeLists.txt"


def test_ros_packages_that_are_imported_are_declared() -> None:
    imported = {module.split(".")[0] for path in [*SOURCES, *LAUNCH_FILES] for _, module in imports_of(path)}
    missing = {PACKAGE_OF_MODULE.get(name, name) for name in imported & ROS_MODULES} - declared_dependencies()
    assert not missing, f"add <exec_depend> to package.xml for {sorted(missing)}"


def test_build_requirements_are_the_same_in_both_lists() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    requires = re.search(r"^requires = \[\n(.*?)^\]", pyproject, re.MULTILINE | re.DOTALL)
    assert requires
    listed = (ROOT / "requirements" / "build.txt").read_text(encoding="utf-8").splitlines()
    assert re.findall(r'"(.+?)"', requires.group(1)) == [line for line in listed if not line.startswith("#")]


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=relative)
def test_launch_files_are_python_with_an_entry_point(path: Path) -> None:
    functions = {
        node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
    }
    assert "generate_launch_description" in functions


def test_configuration_files_parse() -> None:
    yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
    parameters = yaml.safe_load((ROOT / "config" / "sam2_node.yaml").read_text(encoding="utf-8"))
    assert all("ros__parameters" in of_node for of_node in parameters.values())
    profiles = ElementTree.parse(ROOT / "config" / "fastdds.xml").getroot()
    sizes = [int(str(tag.text)) for tag in profiles.iter() if tag.tag.endswith("segment_size")]
    assert sizes, "fastdds.xml sets no segment_size: large images get lost"
    assert min(sizes) >= 32 * 1024 * 1024
