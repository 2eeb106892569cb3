// Command evaluate answers questions about flag documents with flagd's own evaluator, the one that
// the flagd daemon runs.
//
// A question is a JSON object on standard input, {"document": text, "contexts": [object, …], "flag":
// text}; its answer is a line on standard output, {"versions": [text, …], "said": [text, …]}: the
// value of the flag for each context, and what the evaluator complained of.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"

	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/logger"
	"github.com/open-feature/flagd/core/pkg/store"
	"github.com/open-feature/flagd/core/pkg/sync"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

const source = "standard input"

type question struct {
	Document string           `json:"document"`
	Contexts []map[string]any `json:"contexts"`
	Flag     string           `json:"flag"`
}

type answer struct {
	Versions []string `json:"versions"`
	Said     []string `json:"said"`
}

func main() {
	core, said := observer.New(zapcore.WarnLevel)
	heard := logger.NewLogger(zap.New(core), false)
	flags, err := store.NewStore(heard, []string{source})
	if err != nil {
		log.Fatal(err)
	}
	flagd := evaluator.NewJSON(heard, flags)
	questions, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var asked question
		switch err := questions.Decode(&asked); {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			log.Fatal(err)
		}
		if err := answers.Encode(evaluate(flagd, asked, said)); err != nil {
			log.Fatal(err)
		}
	}
}

func evaluate(flagd *evaluator.JSON, asked question, said *observer.ObservedLogs) answer {
	told := answer{Versions: []string{}, Said: []string{}}
	if err := flagd.SetState(sync.DataSync{FlagData: asked.Document, Source: source}); err != nil {
		told.Said = append(told.Said, err.Error())
	}
	for _, about := range asked.Contexts {
		version, _, _, _, err := flagd.ResolveStringValue(context.Background(), "", asked.Flag, about)
		if err != nil {
			told.Said = append(told.Said, err.Error())
		}
		told.Versions = append(told.Versions, version)
	}
	for _, entry := range said.TakeAll() {
		told.Said = append(told.Said, entry.Message)
	}
	return told
}
