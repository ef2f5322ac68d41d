// gater-bench times go-libp2p's BasicConnectionGater on a list of rules and a list of questions.
//
//	gater-bench RULES QUESTIONS ROUNDS
//
// RULES has lines `block peer ID`, `block ip IP` and `block network CIDR`; all others are passed over. QUESTIONS has lines
// `STAGE ANSWER PEER ADDRESS`, where STAGE is peer_dial, addr_dial, accept or secured, ANSWER is deny or pass, and PEER or
// ADDRESS is - where the stage has none. Every answer is checked. Printed are `load_s`, `heap_mib`, and for each stage and
// answer the median of a decision in nanoseconds.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/conngater"
	"github.com/multiformats/go-multiaddr"
)

type question struct {
	deny    bool
	peer    peer.ID
	address multiaddr.Multiaddr
}

// An inbound connection's addresses.
func (q *question) LocalMultiaddr() multiaddr.Multiaddr  { return q.address }
func (q *question) RemoteMultiaddr() multiaddr.Multiaddr { return q.address }

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("want: gater-bench RULES QUESTIONS ROUNDS"))
	}
	rounds, err := strconv.Atoi(os.Args[3])
	fail(err)
	before := heap()
	start := time.Now()
	gater, err := conngater.NewBasicConnectionGater(nil)
	fail(err)
	load(gater, os.Args[1])
	fmt.Printf("load_s %.3f\n", time.Since(start).Seconds())
	fmt.Printf("heap_mib %.1f\n", float64(heap()-before)/(1<<20))
	kinds, questions := read(os.Args[2])
	for _, kind := range kinds {
		fmt.Printf("%s %.1f\n", kind, measure(gater, strings.Fields(kind)[0], questions[kind], rounds))
	}
	runtime.KeepAlive(gater)
}

func load(gater *conngater.BasicConnectionGater, path string) {
	each(path, func(words []string) {
		if len(words) != 3 || words[0] != "block" {
			return
		}
		switch words[1] {
		case "peer":
			id, err := peer.Decode(words[2])
			fail(err)
			fail(gater.BlockPeer(id))
		case "ip":
			fail(gater.BlockAddr(net.ParseIP(words[2])))
		case "network":
			_, network, err := net.ParseCIDR(words[2])
			fail(err)
			fail(gater.BlockSubnet(network))
		}
	})
}

func read(path string) (kinds []string, questions map[string][]question) {
	questions = map[string][]question{}
	each(path, func(words []string) {
		kind := words[0] + " " + words[1]
		q := question{deny: words[1] == "deny"}
		var err error
		if words[2] != "-" {
			q.peer, err = peer.Decode(words[2])
			fail(err)
		}
		if words[3] != "-" {
			q.address, err = multiaddr.NewMultiaddr(words[3])
			fail(err)
		}
		if questions[kind] == nil {
			kinds = append(kinds, kind)
		}
		questions[kind] = append(questions[kind], q)
	})
	return kinds, questions
}

// The median, over small batches, of the time that one decision takes.
func measure(gater *conngater.BasicConnectionGater, stage string, questions []question, rounds int) float64 {
	var ask func(q *question) bool
	switch stage {
	case "peer_dial":
		ask = func(q *question) bool { return gater.InterceptPeerDial(q.peer) }
	case "addr_dial":
		ask = func(q *question) bool { return gater.InterceptAddrDial(q.peer, q.address) }
	case "accept":
		ask = func(q *question) bool { return gater.InterceptAccept(q) }
	case "secured":
		ask = func(q *question) bool { return gater.InterceptSecured(network.DirInbound, q.peer, q) }
	default:
		fail(fmt.Errorf("no stage %s", stage))
	}
	const batch = 32
	var times []float64
	for round := 0; round < rounds; round++ {
		for from := 0; from+batch <= len(questions); from += batch {
			wrong := 0
			start := time.Now()
			for at := from; at < from+batch; at++ {
				if ask(&questions[at]) == questions[at].deny {
					wrong++
				}
			}
			times = append(times, float64(time.Since(start).Nanoseconds())/batch)
			if wrong > 0 {
				fail(fmt.Errorf("%d wrong answers at %s", wrong, stage))
			}
		}
	}
	sort.Float64s(times)
	return times[len(times)/2]
}

func each(path string, do func(words []string)) {
	file, err := os.Open(path)
	fail(err)
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		do(strings.Fields(lines.Text()))
	}
	fail(lines.Err())
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
