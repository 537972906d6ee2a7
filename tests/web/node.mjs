// node node.mjs PACKAGE: runs the job given as JSON on standard input and prints what it returns.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { runJob } from "./job.mjs";

const module = await import(pathToFileURL(`${process.argv[2]}/forerun.mjs`));
console.log(JSON.stringify(await runJob(module, JSON.parse(readFileSync(0)))));
