# redis-server with about `$1` keys of 800 bytes, filled and asked by redis-benchmark (whose keys differ from run to run),
# BGSAVE in the middle. For the benchmarks; what the dump holds is redis_live.py's to test.
keys=$1
folder=$(mktemp -d)
redis-server --port 0 --unixsocket "$folder/s" --dir "$folder" --save "" --appendonly no --enable-debug-command yes \
  --logfile "$folder/log" &
server=$!
ask() { redis-cli -s "$folder/s" "$@"; }
until [ "$(ask PING 2>/dev/null)" = PONG ]; do sleep 0.05; done
fill() { redis-benchmark -q -s "$folder/s" -P 8 -d 800 "$@" >"$folder/out" 2>&1 || echo failed; }
ask DEBUG POPULATE $((keys / 2)) still 800
fill -t set,lpush -r $((keys / 2)) -n $((keys / 2))
ask BGSAVE
fill -t set,get,incr -r "$keys" -n $((keys / 4))
while [ "$(ask INFO persistence | tr -d '\r' | sed -n 's/^rdb_bgsave_in_progress://p')" != 0 ]; do sleep 0.05; done
ask INFO persistence | tr -d '\r' | grep rdb_last_bgsave_status
ask SHUTDOWN NOSAVE
wait "$server"
status=$?
rm -r "$folder"
exit "$status"
