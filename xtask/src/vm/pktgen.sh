# pktgen [PACKETS [FLOWS]]: UDP packets of 60 bytes from the kernel's generator, through a Service, and back to where they came
# from. The device pg0 is the network; its peer up0 is the uplink of the namespace `node`, where the agent runs XDP in the driver.
set -e
packets=${1:-100000} flows=${2:-1000}
state=/tmp/pktgen
mkdir -p $state/manifests

ip netns add node
ip link add pg0 address 02:00:00:00:00:20 type veth peer name up0 address 02:00:00:00:00:10 netns node
# veth takes redirected frames only where its peer polls.
ethtool -K pg0 gro on
ip link set pg0 up
ip -n node link set lo up
ip -n node addr add 192.0.2.10/24 dev up0
ip -n node link set up0 up
ip -n node neigh add 192.0.2.30 lladdr 02:00:00:00:00:20 dev up0 nud permanent
ip -n node route add default via 192.0.2.30
inside="nsenter --net=/run/netns/node"
$inside sysctl -qw net.ipv4.ip_forward=1

cat > $state/manifests/web.yaml <<'Y'
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  ports: [{port: 80, protocol: UDP}]
status: {loadBalancer: {ingress: [{ip: 198.51.100.10}]}}
---
apiVersion: v1
kind: Endpoints
metadata: {name: web}
subsets: [{addresses: [{ip: 192.0.2.30}], ports: [{port: 8080, protocol: UDP}]}]
Y
$inside svc-agent run --manifests $state/manifests --uplinks up0 --xdp-mode native --socket-lb off --max-new-flows 0 \
    --pin-dir /sys/fs/bpf/pktgen --socket $state/socket --state-dir $state/agent --healthz-bind '' --log warn &
agent=$!
control="svcctl --socket $state/socket"
until $control get frontends 2>/dev/null | grep -q 198.51.100.10; do
    kill -0 $agent
    sleep 1
done
$control get devices

tell() {
    file=$1
    shift
    for line in "$@"; do
        echo "$line" > "/proc/net/pktgen/$file"
    done
}
tell kpktgend_0 rem_device_all 'add_device pg0'
tell pg0 "count $packets" 'pkt_size 60' 'delay 0' 'clone_skb 0' 'dst 198.51.100.10' 'dst_mac 02:00:00:00:00:10' \
    'src_min 198.18.0.1' 'src_max 198.18.0.1' 'udp_dst_min 80' 'udp_dst_max 80' 'udp_src_min 1024' \
    "udp_src_max $((1024 + flows))"
back=$(cat /sys/class/net/pg0/statistics/rx_packets)
# Returns when all are sent.
echo start > /proc/net/pktgen/pgctrl
sleep 1
back=$(($(cat /sys/class/net/pg0/statistics/rx_packets) - back))
sed -n '/^Result/,$p' /proc/net/pktgen/pg0
# What the programs counted for the Service, and what else happened to packets.
$control get services -o wide
$control get counters
echo "pktgen: $packets packets of $flows flows sent, $back came back"
kill $agent
wait $agent || true
# Some are lost where the device's queue is full; none coming back means that nothing was translated.
[ "$back" -gt $((packets / 2)) ]
