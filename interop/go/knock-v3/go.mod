module knock-v3

go 1.24

require (
	filippo.io/edwards25519 v1.1.0
	golang.org/x/crypto v0.41.0
)

require golang.org/x/sys v0.35.0 // indirect
