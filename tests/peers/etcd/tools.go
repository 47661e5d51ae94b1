//go:build tools

// Package etcd pins the current server, which scripts/setup builds.
package etcd

import _ "go.etcd.io/etcd/server/v3"
