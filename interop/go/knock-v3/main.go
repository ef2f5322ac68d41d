// Command knock-v3 derives every value of the test vectors of the sealed knock from their inputs, with Go's own
// libraries and a Noise handshake written out step by step, and compares.
//
// Usage: knock-v3 VECTORS.json. It prints "ok" and the name of each vector that agrees, and every value that does not.
// Exit status: 0 if all agree, 1 if any does not, 2 if the file cannot be used.
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
)

// Inputs is what all vectors of a file have in common.
type Inputs struct {
	DialerSeed      Hex    `json:"dialer_seed"`
	ListenerSeed    Hex    `json:"listener_seed"`
	EphemeralSecret Hex    `json:"ephemeral_secret"`
	Nonce           Hex    `json:"nonce"`
	FlightKey       Hex    `json:"k_flight"`
	TimeMs          uint64 `json:"time_ms"`
	Mode            uint8  `json:"mode"`
	Flags           uint8  `json:"flags"`
	Flight          Hex    `json:"flight"`
}

// Hex is bytes that stand in JSON as hexadecimal digits.
type Hex []byte

func (h *Hex) UnmarshalJSON(text []byte) error {
	var digits string
	if err := json.Unmarshal(text, &digits); err != nil {
		return err
	}
	decoded, err := hex.DecodeString(digits)
	*h = decoded
	return err
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: knock-v3 VECTORS.json")
		os.Exit(2)
	}
	differences, err := run(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if differences > 0 {
		os.Exit(1)
	}
}

func run(path string) (differences int, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var file struct {
		Inputs  Inputs
		Vectors []map[string]*string
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return 0, err
	}
	if len(file.Vectors) == 0 {
		return 0, fmt.Errorf("%s: no vectors", path)
	}
	for _, vector := range file.Vectors {
		wrong, err := check(file.Inputs, vector)
		if err != nil {
			return 0, err
		}
		differences += wrong
	}
	return differences, nil
}

// check compares both ways: no value of the file may go unchecked, and none may be missing.
func check(inputs Inputs, vector map[string]*string) (wrong int, err error) {
	var network *Network
	name := "?"
	if vector["name"] != nil {
		name = *vector["name"]
	}
	if vector["network_name"] != nil && vector["network_secret"] != nil {
		secret, err := hex.DecodeString(*vector["network_secret"])
		if err != nil {
			return 0, err
		}
		network = &Network{Name: []byte(*vector["network_name"]), Secret: secret}
	}
	derived, err := Derive(inputs, network)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	for key := range vector {
		if key == "name" || key == "network_name" || key == "network_secret" {
			continue
		}
		if _, found := derived[key]; !found {
			fmt.Printf("%s: %s is not known here\n", name, key)
			wrong++
		}
	}
	for key, found := range derived {
		var expected []byte
		if vector[key] != nil {
			if expected, err = hex.DecodeString(*vector[key]); err != nil {
				return 0, fmt.Errorf("%s: %s: %w", name, key, err)
			}
		}
		if !bytes.Equal(found, expected) {
			fmt.Printf("%s: %s is %x, not %x\n", name, key, found, expected)
			wrong++
		}
	}
	if wrong == 0 {
		fmt.Println("ok", name)
	}
	return wrong, nil
}
