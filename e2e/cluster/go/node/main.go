// Command kube is every Kubernetes program that the embedded cluster needs, in
// one binary: it takes the role of the name by which it is called, so that the
// launcher links "kubelet", "etcd" and so on to it. One binary shares the code
// of all of them (140 MB instead of some 700).
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var roles = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
}

func main() {
	role := filepath.Base(os.Args[0])
	if role == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	command, known := roles[role]
	if !known {
		fmt.Fprintf(os.Stderr, "call this program by the name of a Kubernetes component, not as %q\n", role)
		os.Exit(2)
	}
	os.Exit(cli.Run(command()))
}
