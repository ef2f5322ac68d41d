package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smartcontractkit/libocr/commontypes"
	"github.com/smartcontractkit/libocr/networking/ragep2pwrapper"
	"github.com/smartcontractkit/libocr/networking/rageping"
	"github.com/smartcontractkit/libocr/ragep2p/types"
)

// pingConfig is rageping's, with pauses that suit a test.
func pingConfig(size int) *rageping.LatencyMetricsServiceConfig {
	return &rageping.LatencyMetricsServiceConfig{
		PingSize:  size,
		MinPeriod: 100 * time.Millisecond,
		MaxPeriod: 150 * time.Millisecond,
		Timeout:   5 * time.Second,
	}
}

// startPings measures the latency to all peers, with pings of each size.
func startPings(host ragep2pwrapper.Host, sizes []int, peers []types.PeerID, log logger, events *eventWriter) {
	var configs []*rageping.LatencyMetricsServiceConfig
	for _, size := range sizes {
		configs = append(configs, pingConfig(size))
	}
	registry := prometheus.NewRegistry()
	service := newPings(rageping.NewLatencyMetricsService, host, registry, log, configs)
	service.RegisterPeers(peers)
	go reportPings(registry, events)
}

// newPings infers L, the type of a logger that lives in an internal package.
func newPings[L any](
	create func(ragep2pwrapper.Host, prometheus.Registerer, L, []*rageping.LatencyMetricsServiceConfig) rageping.LatencyMetricsService,
	host ragep2pwrapper.Host, registry prometheus.Registerer, log logger,
	configs []*rageping.LatencyMetricsServiceConfig,
) rageping.LatencyMetricsService {
	return create(host, registry, any(childLogger[L]{log}).(L), configs)
}

// childLogger is a logger for which L is an interface that it implements.
type childLogger[L any] struct{ logger }

func (l childLogger[L]) MakeChild(commontypes.LogFields) L   { return any(l).(L) }
func (l childLogger[L]) MakeUpdated(commontypes.LogFields) L { return any(l).(L) }

func (l childLogger[L]) ErrorIfNotCanceled(msg string, ctx context.Context, fields commontypes.LogFields) {
	if ctx.Err() == nil {
		l.Error(msg, fields)
	}
}

type pingsEvent struct {
	Event  string `json:"event"`
	PeerID string `json:"peer_id"`
	Size   string `json:"ping_size"`
	// How often each of rageping's metrics counted; for the histogram, how many.
	Counts map[string]int `json:"counts"`
}

// reportPings writes what rageping counted, as often as it changes.
func reportPings(registry *prometheus.Registry, events *eventWriter) {
	reported := map[string]string{}
	for range time.Tick(metricsPollInterval) {
		families, err := registry.Gather()
		if err != nil {
			fmt.Fprintf(os.Stderr, "ragep2p-peer: read metrics: %v\n", err)
			continue
		}
		current := map[string]pingsEvent{}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				event := pingsEvent{Event: "pings"}
				for _, label := range metric.GetLabel() {
					switch label.GetName() {
					case "remote_peer_id":
						event.PeerID = label.GetValue()
					case "ping_size":
						event.Size = label.GetValue()
					}
				}
				key := event.PeerID + event.Size
				if known, ok := current[key]; ok {
					event = known
				} else {
					event.Counts = map[string]int{}
				}
				event.Counts[family.GetName()] = int(metric.GetCounter().GetValue()) + int(metric.GetHistogram().GetSampleCount())
				current[key] = event
			}
		}
		for key, event := range current {
			if text := fmt.Sprint(event.Counts); text != reported[key] {
				reported[key] = text
				events.write(event)
			}
		}
	}
}
