// Runs a program's scenarios against the server at $URL, by their names: run.mjs PROGRAM.
// A scenario is a function that the program exports. For a line each, its name and its result, or how it failed, as JSON.

const [program] = process.argv.slice(2);
const scenarios = await import(`./${program}`);

for (const name of Object.keys(scenarios)) {
  let outcome;
  try {
    outcome = { result: (await scenarios[name]()) ?? null };
  } catch (error) {
    outcome = { error: String(error?.stack ?? error) };
  }
  console.log(JSON.stringify({ name, ...outcome }));
}
process.exit(0);
