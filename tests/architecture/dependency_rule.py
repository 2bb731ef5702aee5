"""The dependency rule: which room may include and link which, and who sees gRPC and LibTorch.

Everything here is a function of its arguments; dependency_rule_test.py feeds it the real tree.
A violation is one line of text: "file:line: what it does, and the rule it breaks".
"""

import re

SERVICES = {"services/base", "services/config", "services/metrics", "services/rpc", "services/member"}

# Room -> rooms it may include from and link. A room always sees itself; a room that is not listed
# here is a violation by itself, so that a new folder gets its line.
MAY_USE = {
    "services/base": set(),
    "services/config": {"services/base", "proto", "numerics"},
    "services/metrics": {"services/base"},
    "services/rpc": {"services/base", "services/metrics"},
    "services/member": {"services/base", "services/config", "services/metrics", "services/rpc", "proto"},
    "numerics": {"services/base"},
    "prompts": {"services/base", "proto"},  # proto: dataset_config alone, a library of its own
    "model/io": {"services/base", "numerics"},
    "model": {"services/base", "numerics", "model/io"},
    "scan": {"services/base", "numerics", "model", "model/io"},
    "weights": {"services/base", "services/metrics", "services/rpc", "proto"},
    "reward_server": SERVICES | {"proto"},
    "orchestrator": SERVICES | {"proto", "numerics", "prompts"},
    "rollout_worker": SERVICES | {"proto", "numerics", "prompts", "model", "model/io", "weights"},
    "learner": SERVICES | {"proto", "numerics", "prompts", "model", "model/io", "weights"},
}
# Programs at the top: they may use anything, and nothing may use them.
TOP = {"cli", "bench", "tests", "cmake"}

# LibTorch's headers and libraries.
TORCH_HEADER = re.compile(r"^(ATen|c10|torch|caffe2)/")
TORCH_ROOMS = {"model", "learner", "rollout_worker", "bench", "tests"}
TORCH_LIBRARY = re.compile(r"^lib(torch|c10|caffe2)")

# gRPC's headers and generated stubs: besides these files only services/rpc and tests.
GRPC_HEADER = re.compile(r"^(grpc|grpcpp|grpc\+\+)/|\.grpc\.pb\.h$")
GRPC_FILE = re.compile(r"(^|/)(main\.cc|\w+_service\.(h|cc)|\w+_client\.(h|cc))$|^weights/grpc_\w+\.(h|cc)$")

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def room_of(path):
    """The room a file of the repository belongs to, or None outside of all rooms."""
    folder = path.rsplit("/", 1)[0] if "/" in path else ""
    for room in sorted([*MAY_USE, *TOP, "proto"], key=len, reverse=True):
        if folder == room or folder.startswith(room + "/"):
            return room
    return None


def room_of_include(header):
    """The room a header is included from; generated messages are the room proto."""
    return "proto" if header.startswith("temper/v1/") else room_of(header)


def check_use(room, used, place, how):
    """Violations of one use of room `used` by room `room`; `how` says what was done."""
    if used is None or used == room or room in TOP:
        return []
    if room not in MAY_USE:
        return [f"{place}: {room} has no line in the dependency rule"]
    if used in MAY_USE[room]:
        return []
    return [f"{place}: {how}: {room} may not use {used}"]


def check_include(path, place, header):
    """Violations of one #include of `header` in the file `path`."""
    room = room_of(path)
    violations = check_use(room, room_of_include(header), place, f"includes {header}")
    if GRPC_HEADER.search(header) and room not in ("services/rpc", "tests") and not GRPC_FILE.search(path):
        violations.append(
            f"{place}: includes {header}: gRPC is seen by services/rpc, main.cc, *_service.* and *_client.*")
    if header == "torch/torch.h":
        violations.append(f"{place}: includes {header}: it costs half a minute; take a narrow header")
    elif TORCH_HEADER.search(header) and room not in TORCH_ROOMS:
        violations.append(f"{place}: includes {header}: LibTorch is seen by {sorted(TORCH_ROOMS)}")
    return violations


def check_sources(files):
    """Violations in `files`, a dictionary of path -> text of all C++ files."""
    violations = []
    for path, text in sorted(files.items()):
        if room_of(path) is None:
            violations.append(f"{path}:1: is in no room of the dependency rule")
            continue
        for number, line in enumerate(text.splitlines(), 1):
            found = INCLUDE.match(line)
            if not found:
                continue
            place, header = f"{path}:{number}", found.group(1) or found.group(2)
            if header.startswith("."):
                violations.append(f"{place}: includes {header}: includes are written from the root")
            violations += check_include(path, place, header)
    return violations


def targets_of(lists):
    """Of `lists` (path -> text of every CMakeLists.txt): target -> (place, [targets it links])."""
    targets = {}
    for path, text in sorted(lists.items()):
        text = re.sub(r"#.*", "", text)
        for found in re.finditer(r"\btemper_(library|binary|proto)\s*\(([^)]*)\)", text):
            words = found.group(2).split()
            name = words[0] if found.group(1) == "binary" else "temper_" + words[0]
            links = [word for word in words[1:] if word.startswith("temper_")]
            line = text.count("\n", 0, found.start()) + 1
            targets[name] = (f"{path}:{line}", links)
    return targets


def check_links(lists):
    """Violations of the DEPS of every library and binary."""
    targets = targets_of(lists)
    violations = []
    for name, (place, links) in sorted(targets.items()):
        room = room_of(place.split(":")[0])
        for link in links:
            if link == "temper_torch" and room not in TORCH_ROOMS:
                violations.append(f"{place}: {name} links LibTorch: {room} may not")
            if link in targets:
                used = room_of(targets[link][0].split(":")[0])
                violations += check_use(room, used, place, f"{name} links {link}")
    return violations


def check_needed(program, libraries):
    """Violations of a program that must run where there is no LibTorch; `libraries` are its names."""
    return [f"{program}: loads {name}: it must not link LibTorch"
            for name in libraries if TORCH_LIBRARY.search(name)]
