#!/usr/bin/env bash
# Private Postgres, Redis and RabbitMQ in one folder, on free loopback ports: for tests and for trying things.
#
#   services.sh up DIR [NAME...]     make and start what is named (default: all), wait, print the addresses
#   services.sh down DIR             end everything and remove DIR
#   services.sh env DIR [PREFIX]     print the addresses again; PREFIX [TEST_] stands before each name, - for none
#   services.sh start DIR NAME       start again on the same data and ports, and wait
#   services.sh stop DIR NAME        stop in good order, the data stays
#   services.sh kill9 DIR NAME       SIGKILL the whole process tree
#   services.sh pause|resume DIR NAME   SIGSTOP or SIGCONT the whole process tree
#   services.sh alarm|calm DIR       have RabbitMQ believe that its memory is full, or no more
#   services.sh fulldisk|freedisk DIR   have RabbitMQ believe that its disk is full, or no more
#   services.sh reap DIR SECONDS     wait until nobody called `up` for so long, then down
#   services.sh guard                read lines (see guard()) until whoever holds standard input is gone, then
#                                    clean up after it: children, folders, databases, virtual hosts
#
# NAME is postgres, redis or rabbitmq. Nothing outside DIR (and DIR.lock beside it) is read or written.
# As root, Postgres runs as the account PG_USER [postgres], which must be able to reach DIR.
# Data is safe from kill -9 and from restarts, not from a power cut (fsync is off).
set -euo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
say() { printf 'services: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '2,/^set -/{/^#/p}' "$self" | sed 's/^# \{0,1\}//' >&2; exit 2; }

PG_USER=${PG_USER:-postgres}
WAIT_S=${WAIT_S:-90}
newest() { local found=("$@"); [ -e "${found[-1]}" ] || die "not installed: ${found[-1]}"; printf '%s' "${found[-1]}"; }

# ---- ports: random below the range from which the system serves outgoing connections; tests take theirs from 28000
taken() { awk -v want="$(printf ':%04X' "$1")" '$2 ~ want "$" && $4 == "0A" {found = 1} END {exit !found}' /proc/net/tcp /proc/net/tcp6; }
free_port() {
  local port
  for _ in {1..200}; do
    port=$((20000 + SRANDOM % 8000))
    if ! taken "$port"; then printf '%s' "$port"; return; fi
  done
  die "found no free port"
}
ports() { # the ports of DIR, chosen once
  if [ ! -f "$DIR/ports" ]; then
    mkdir -p "$DIR/log"; chmod 755 "$DIR"
    local name
    for name in PG REDIS RABBIT MANAGEMENT PROMETHEUS DIST EPMD; do echo "${name}_PORT=$(free_port)"; done > "$DIR/ports.new"
    echo "PASSWORD=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')" >> "$DIR/ports.new"
    mv "$DIR/ports.new" "$DIR/ports"
  fi
  # shellcheck disable=SC1091
  . "$DIR/ports"
}

# ---- processes, each known by its id and the time it was born
born() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
alive() { [ -d "/proc/$1" ] && ! grep -q '^State:.[ZX]' "/proc/$1/status" 2>/dev/null; }
pid_of() {
  local pid at
  [ -f "$DIR/$1.pid" ] && read -r pid at < "$DIR/$1.pid" && alive "$pid" && [ "$(born "$pid")" = "$at" ] && echo "$pid"
}
tree() { local child; echo "$1"; for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done; }
gone() { # waits until the process PID has ended, at most SECONDS
  local end=$((SECONDS + $2))
  while alive "$1"; do [ "$SECONDS" -lt "$end" ] || return 1; sleep 0.05; done
}
kill_tree() { # stopped first, so that nothing is born while the tree is read
  local pid all
  kill -STOP "$1" 2>/dev/null || return 0
  all=$(tree "$1")
  for pid in $all; do kill -KILL "$pid" 2>/dev/null || true; done
  for pid in $all; do gone "$pid" 20 || say "process $pid does not end"; done
}
launch() { # NAME COMMAND...: a session of its own, without the lock's descriptor
  local name=$1; shift
  setsid "$@" < /dev/null >> "$DIR/log/$name.out" 2>&1 9>&- &
  echo "$! $(born $!)" > "$DIR/$name.pid"
  disown $!
}

# ---- Postgres
postgres_user() { if [ "$(id -u)" = 0 ]; then echo setpriv --reuid="$PG_USER" --regid="$(id -g "$PG_USER")" --init-groups; fi; }
start_postgres() {
  local bin data=$DIR/postgres as stale
  bin=$(newest /usr/lib/postgresql/*/bin); as=$(postgres_user)
  if [ ! -f "$data/PG_VERSION" ]; then
    rm -rf "$data"; mkdir -p "$data"; printf '%s' "$PASSWORD" > "$DIR/password"
    if [ -n "$as" ]; then chown "$PG_USER" "$data" "$DIR/password"; fi
    chmod 700 "$data"; chmod 400 "$DIR/password"
    # shellcheck disable=SC2086
    (cd / && $as "$bin/initdb" -D "$data" -U app --pwfile="$DIR/password" -A scram-sha-256 -E UTF8 --locale=C.UTF-8 --no-sync 9>&-) \
      > "$DIR/log/initdb.out" 2>&1 || { cat "$DIR/log/initdb.out" >&2; die "initdb failed (can $PG_USER reach $DIR?)"; }
    cat >> "$data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $PG_PORT
unix_socket_directories = ''
max_connections = 400
shared_buffers = 64MB
fsync = off
CONF
  fi
  # A killed server that nobody has reaped yet still looks alive to the lock file's check.
  stale=$(head -1 "$data/postmaster.pid" 2>/dev/null || true)
  if [ -n "$stale" ] && ! alive "$stale"; then rm -f "$data/postmaster.pid"; fi
  # shellcheck disable=SC2086
  (cd / && launch postgres $as "$bin/postgres" -D "$data")
}
ready_postgres() {
  local bin; bin=$(newest /usr/lib/postgresql/*/bin)
  "$bin/pg_isready" -q -h 127.0.0.1 -p "$PG_PORT" -t 2 9>&-
}

# ---- Redis
start_redis() {
  mkdir -p "$DIR/redis"
  (cd "$DIR/redis" && launch redis redis-server --bind 127.0.0.1 --port "$REDIS_PORT" --save '' --appendonly no --dir "$DIR/redis")
}
ready_redis() {
  local answer
  answer=$( { exec 3<> "/dev/tcp/127.0.0.1/$REDIS_PORT"; printf 'PING\r\n' >&3; timeout 2 head -c 5 <&3; } 2>/dev/null) && [ "$answer" = +PONG ]
}

# ---- RabbitMQ, with a port mapper and a cookie of its own
rabbit_env() {
  local home=$DIR/rabbitmq
  printf '%s\0' "HOME=$home/home" "PATH=/usr/local/bin:/usr/bin:/bin" LANG=C.UTF-8 RUNNING_UNDER_SYSTEMD=true \
    "RABBITMQ_NODENAME=test$RABBIT_PORT@localhost" "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1" "RABBITMQ_NODE_PORT=$RABBIT_PORT" \
    "RABBITMQ_DIST_PORT=$DIST_PORT" "ERL_EPMD_PORT=$EPMD_PORT" ERL_EPMD_ADDRESS=127.0.0.1 \
    "RABBITMQ_MNESIA_BASE=$home/data" "RABBITMQ_LOG_BASE=$DIR/log" "RABBITMQ_LOGS=$DIR/log/rabbitmq.log" \
    "RABBITMQ_CONFIG_FILE=$home/rabbitmq.conf" "RABBITMQ_ADVANCED_CONFIG_FILE=$home/advanced.config" \
    "RABBITMQ_CONF_ENV_FILE=$home/rabbitmq-env.conf" "RABBITMQ_ENABLED_PLUGINS_FILE=$home/plugins" \
    "RABBITMQ_PID_FILE=$home/node.pid" "ERL_CRASH_DUMP=$DIR/log/erl_crash.dump" \
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
}
configure_rabbitmq() {
  local home=$DIR/rabbitmq
  [ ! -f "$home/rabbitmq.conf" ] || return 0
  mkdir -p "$home/home" "$home/data"
  head -c 20 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$home/home/.erlang.cookie"; chmod 400 "$home/home/.erlang.cookie"
  : > "$home/rabbitmq-env.conf"; echo '[].' > "$home/advanced.config"
  echo '[rabbitmq_management,rabbitmq_prometheus,rabbitmq_shovel,rabbitmq_shovel_management].' > "$home/plugins"
  cat > "$home/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$RABBIT_PORT
management.tcp.ip = 127.0.0.1
management.tcp.port = $MANAGEMENT_PORT
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = $PROMETHEUS_PORT
default_user = app
default_pass = $PASSWORD
disk_free_limit.absolute = 50MB
collect_statistics_interval = 1000
log.file.level = warning
CONF
}
start_rabbitmq() {
  local sbin env=()
  sbin=$(newest /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin)
  configure_rabbitmq
  mapfile -d '' env < <(rabbit_env)
  if ! pid_of epmd > /dev/null; then
    launch epmd env -i "${env[@]}" epmd -address 127.0.0.1 -port "$EPMD_PORT"
    for _ in {1..100}; do if taken "$EPMD_PORT"; then break; fi; sleep 0.05; done
  fi
  (cd "$DIR/rabbitmq" && launch rabbitmq env -i "${env[@]}" "$sbin/rabbitmq-server")
}
ready_rabbitmq() {
  local answer
  answer=$( { exec 3<> "/dev/tcp/127.0.0.1/$RABBIT_PORT"; printf 'AMQP\0\0\11\1' >&3; timeout 2 head -c 1 <&3 | od -An -tx1; } 2>/dev/null) || return 1
  [ "$answer" = ' 01' ] || return 1 # a method frame: connection.start
  answer=$( { exec 3<> "/dev/tcp/127.0.0.1/$MANAGEMENT_PORT"; printf 'GET /api/overview HTTP/1.0\r\n\r\n' >&3; timeout 2 head -c 12 <&3; } 2>/dev/null) || return 1
  [ "${answer: -3}" = 401 ] # alive, and wants a password
}

control_rabbitmq() { # COMMAND...: as rabbitmqctl knows it
  local sbin env=()
  sbin=$(newest /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin)
  mapfile -d '' env < <(rabbit_env)
  (cd "$DIR/rabbitmq" && env -i "${env[@]}" "$sbin/rabbitmqctl" --quiet "$@" < /dev/null >&2)
}
# How much of the machine's memory it may use: 0 is a resource alarm at once.
memory_rabbitmq() { control_rabbitmq set_vm_memory_high_watermark "$1"; }
# How many bytes of the disk must stay free: more than there are is a resource alarm at once.
disk_rabbitmq() { control_rabbitmq set_disk_free_limit "$1"; }

# ---- verbs
check_name() { case ${1:-} in postgres | redis | rabbitmq) ;; *) usage ;; esac; }
start() { if ! pid_of "$1" > /dev/null; then "start_$1"; fi; }
await() {
  local end=$((SECONDS + WAIT_S))
  until "ready_$1"; do
    pid_of "$1" > /dev/null || { tail -n 20 "$DIR/log/$1.out" >&2; die "$1 ended while starting"; }
    [ "$SECONDS" -lt "$end" ] || die "$1 did not answer within $WAIT_S s (see $DIR/log)"
    sleep 0.1
  done
}
stop() {
  local pid signal=TERM
  pid=$(pid_of "$1") || return 0
  signal_tree CONT "$pid"
  [ "$1" != postgres ] || signal=INT # without waiting for clients
  kill -"$signal" "$pid" 2>/dev/null || true
  gone "$pid" 30 || kill_tree "$pid"
  rm -f "$DIR/$1.pid"
}
kill9() { local pid; pid=$(pid_of "$1") || return 0; kill_tree "$pid"; rm -f "$DIR/$1.pid"; }
signal_tree() { local pid; for pid in $(tree "$2"); do kill -"$1" "$pid" 2>/dev/null || true; done; }
print_env() {
  local prefix=${1:-TEST_}; [ "$prefix" != - ] || prefix=
  if pid_of postgres > /dev/null; then echo "${prefix}DATABASE_URL=postgres://app:$PASSWORD@127.0.0.1:$PG_PORT/postgres"; fi
  if pid_of redis > /dev/null; then echo "${prefix}REDIS_URL=redis://127.0.0.1:$REDIS_PORT/0"; fi
  if pid_of rabbitmq > /dev/null; then
    echo "${prefix}RABBITMQ_URL=amqp://app:$PASSWORD@127.0.0.1:$RABBIT_PORT/%2f"
    echo "${prefix}RABBITMQ_MANAGEMENT_URL=http://app:$PASSWORD@127.0.0.1:$MANAGEMENT_PORT"
    echo "${prefix}RABBITMQ_PROMETHEUS_URL=http://127.0.0.1:$PROMETHEUS_PORT/metrics"
  fi
}
down() {
  [ -f "$DIR/ports" ] || return 0
  kill9 rabbitmq; kill9 epmd; kill9 redis
  stop postgres # in good order: a killed server leaves its shared memory behind
  rm -rf "$DIR"
}
reap() {
  exec 8> "$DIR.reaper"; flock -n 8 || return 0 # one is enough
  while [ -d "$DIR" ]; do
    exec 9> "$DIR.lock"; flock 9
    if [ $(($(date +%s) - $(stat -c %Y "$DIR/used" 2>/dev/null || echo 0))) -ge "$1" ]; then down; return; fi
    exec 9>&-; sleep 5
  done
}
guard() { # lines: child PID | folder DIR (holding DIR/services, a mounted DIR/disk and files) | database URL | vhost MANAGEMENT_URL NAME | forget WHAT
  local verb what more bin
  declare -A children=() folders=() databases=() vhosts=()
  while read -r verb what more; do
    case $verb in
      child) children[$what]=$(born "$what" || true) ;; # it may have ended already
      folder) folders[$what]=1 ;;
      database) databases[$what]=1 ;;
      vhost) vhosts[$more]=$what ;;
      forget) unset "children[$what]" "folders[$what]" ;;
    esac
  done
  for what in "${!children[@]}"; do
    if [ -n "${children[$what]}" ] && [ "$(born "$what")" = "${children[$what]}" ]; then kill_tree "$what"; fi
  done
  for what in "${!folders[@]}"; do
    if [ -d "$what/services" ]; then "$self" down "$what/services" || true; fi
    ! mountpoint -q "$what/disk" || umount --lazy "$what/disk" || true
    case ${what##*/} in chatchit-test-*) rm -rf "$what" ;; esac
  done
  for what in "${!vhosts[@]}"; do delete_vhost "${vhosts[$what]}" "$what" || true; done
  [ ${#databases[@]} -eq 0 ] || bin=$(newest /usr/lib/postgresql/*/bin)
  for what in "${!databases[@]}"; do
    "$bin/psql" -X -q "${what%/*}/postgres" -c "drop database if exists \"${what##*/}\" with (force)" > /dev/null 2>&1 || true
  done
}
delete_vhost() { # http://user:password@host:port NAME
  local login=${1#http://}; local address=${login#*@}; login=${login%%@*}
  exec 3<> "/dev/tcp/${address%:*}/${address#*:}"
  printf 'DELETE /api/vhosts/%s HTTP/1.0\r\nAuthorization: Basic %s\r\n\r\n' "$2" "$(printf %s "$login" | base64 -w0)" >&3
  timeout 10 head -c 12 <&3 > /dev/null; exec 3>&-
}

[ $# -ge 1 ] || usage
cmd=$1; shift
if [ "$cmd" = guard ]; then guard; exit; fi
[ $# -ge 1 ] || usage
DIR=$(readlink -m "$1"); shift
case $DIR in / | /tmp | /root | /home | /var | /etc | /usr | "$HOME") die "refusing to use $DIR itself" ;; esac
if [ "$cmd" = reap ]; then reap "${1:?seconds}"; exit; fi
mkdir -p "$(dirname "$DIR")"; exec 9> "$DIR.lock"; flock 9
if [ -d "$DIR" ] && [ ! -f "$DIR/ports" ] && [ -n "$(ls -A "$DIR")" ]; then die "$DIR is not empty and not made by this script"; fi
case $cmd in
  up)
    [ $# -gt 0 ] || set -- postgres redis rabbitmq
    ports; touch "$DIR/used"
    for name in "$@"; do check_name "$name"; start "$name"; done
    for name in "$@"; do await "$name"; done
    print_env ;;
  down) if [ -f "$DIR/ports" ]; then ports; down; fi; rm -f "$DIR.lock" ;;
  env) ports; print_env "${1:-}" ;;
  start) check_name "${1:-}"; ports; start "$1"; await "$1" ;;
  stop) check_name "${1:-}"; ports; stop "$1" ;;
  kill9) check_name "${1:-}"; ports; kill9 "$1" ;;
  pause) check_name "${1:-}"; ports; signal_tree STOP "$(pid_of "$1")" ;;
  resume) check_name "${1:-}"; ports; signal_tree CONT "$(pid_of "$1")" ;;
  alarm) ports; memory_rabbitmq 0 ;;
  calm) ports; memory_rabbitmq 0.6 ;;
  fulldisk) ports; disk_rabbitmq 1000000000000000000 ;;
  freedisk) ports; disk_rabbitmq 50MB ;;
  *) usage ;;
esac
