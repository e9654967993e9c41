package main

import (
	"fmt"
	"os"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins"
	"github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
	"github.com/urfave/cli/v2"
)

func init() {
	programs["containerd"] = app(command.App)
	programs["ctr"] = app(ctr.New)
}

func app(construct func() *cli.App) func() {
	return func() {
		app := construct()
		if err := app.Run(os.Args); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %s\n", app.Name, err)
			os.Exit(1)
		}
	}
}
