// Loaded before Azurite. Ten minutes after its start, and again every ten, it collects the bytes that no blob has any
// more, all in one go: with 6,000 of them it was seen to answer nobody for five minutes. The sandbox does not live long
// enough to need the memory back, so the collector waits as long as a timer can.
const path = require("node:path");

const constants = require(path.join(path.dirname(process.argv[1]), "utils", "constants.js"));
if (typeof constants.DEFAULT_GC_INTERVAL_MS !== "number") {
  throw new Error("this Azurite keeps the interval of its collector somewhere else");
}
constants.DEFAULT_GC_INTERVAL_MS = 2 ** 31 - 1;
