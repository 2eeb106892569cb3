// Answers questions about flag documents with flagd's evaluator for JavaScript.
//
// A question is a JSON object, one a line of standard input, {"document": text, "contexts": [object, …],
// "flag": text}; its answer is a line on standard output, {"versions": [text, …], "said": [text, …]}: the
// value of the flag for each context, and what the evaluator complained of.
import { createInterface } from 'node:readline';

import { FlagdCore, MemoryStorage } from '@openfeature/flagd-core';

function evaluate({ document, contexts, flag }) {
  const said = [];
  const hear = (message) => said.push(String(message));
  const logger = { error: hear, warn: hear, info: hear, debug: hear };
  const storage = new MemoryStorage(logger);
  const core = new FlagdCore(storage, logger);
  try {
    storage.setConfigurations(document, true); // the core itself does not insist on the schema
  } catch (error) {
    hear(error.message);
  }
  const versions = contexts.map((context) => {
    const { value, errorMessage } = core.resolveStringEvaluation(flag, '', context, logger);
    if (errorMessage) hear(errorMessage);
    return value;
  });
  return { versions, said };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(evaluate(JSON.parse(line)))}\n`);
}
