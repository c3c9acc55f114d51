// Runs failure modes on advisory-lock for Node, and prints a table. Run by scripts/test-comparison. The numbers are
// those of docs/comparison.md; what needs a timeout, or the caller's own connection, it does not have.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const modules = process.env.NODE_MODULES;
const require = createRequire(join(modules, "modes.mjs"));
const pg = require("pg");
const createMutex = require("advisory-lock").default;
const { version } = JSON.parse(readFileSync(join(modules, "advisory-lock/package.json")));

const config = { connectionString: process.env.DATABASE_URL };
const mutex = createMutex(config.connectionString);
const connect = async () => {
    const client = new pg.Client(config);
    await client.connect();
    return client;
};
const oracle = await connect();
const ask = async (query) => Object.values((await oracle.query(query)).rows[0] ?? {})[0];
const held = () => ask("SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND granted");
const free = async () => {
    for (let tries = 0; tries < 100 && (await held()) > 0; tries++) await sleep(50);
};
const holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted";
const sleep = (millis) => new Promise((done) => setTimeout(done, millis));
const within = (millis, work) => Promise.race([work, sleep(millis).then(() => "H")]);
const boom = new Error("boom");
// What the library throws outside of any promise would end the process.
let unhandled = false;
process.on("uncaughtException", () => (unhandled = true));
process.on("unhandledRejection", () => (unhandled = true));

const modes = {
    "1 body raises": async () => {
        await mutex("n1").withLock(() => Promise.reject(boom)).catch(() => {});
        await sleep(100);
        return (await held()) > 0 ? "W" : "S";
    },
    "6 released before commit": async () => {
        const client = await connect();
        await client.query("BEGIN");
        await mutex("n6").withLock(() => client.query("SELECT 1"));
        await sleep(100);
        const outcome = (await held()) > 0 ? "S" : "W";
        await client.query("COMMIT");
        await client.end();
        return outcome;
    },
    "8 connection killed": async () => {
        unhandled = false;
        const told = await mutex("n8")
            .withLock(async () => {
                await ask(`SELECT pg_terminate_backend(pid) FROM (${holder}) AS s`);
                await sleep(200);
            })
            .then(() => false, () => true);
        return told || unhandled ? "T" : "W";
    },
    "10 deadlock": async () => {
        const [a, b] = [mutex("n10a"), mutex("n10b")];
        const both = (first, second) => first.withLock(() => sleep(200).then(() => second.withLock(async () => {})));
        const work = Promise.all([both(a, b), both(b, a)]).then(() => "S", () => "T");
        const outcome = await within(5000, work);
        await ask("SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory'");
        await work;
        return outcome;
    },
    "12 error replaced": async () => {
        const replaced = await mutex("n12")
            .withLock(async () => {
                await ask(`SELECT pg_terminate_backend(pid) FROM (${holder}) AS s`);
                await sleep(200);
                throw boom;
            })
            .catch((error) => error !== boom);
        return replaced ? "W" : "S";
    },
    "13 nested": async () => {
        const work = mutex("n13").withLock(() => mutex("n13").withLock(async () => {})).then(() => "S", () => "T");
        const outcome = await within(3000, work);
        await ask("SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory'");
        await work;
        return outcome;
    },
};

console.log(`| mode | advisory-lock ${version} (Node) |\n| --- | --- |`);
for (const [name, mode] of Object.entries(modes)) {
    await free();
    console.log(`| ${name} | ${await mode()} |`);
}
process.exit();
