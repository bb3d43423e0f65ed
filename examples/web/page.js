import { startCall } from "/@pi-voice/client/index.js"; // with a bundler: from "@pi-voice/client"
import { answerOf, onStart, showResults, showState, showTable, showTurns } from "/view.js";

const fetchSession = async (signal) => answerOf(await fetch("/session", { method: "POST", signal }));
const tools = { show_table: ({ area }) => showTable({ table: "T12", area }) }; // what the agent may do

onStart(async ({ signal, audio }) => {
  const call = await startCall({ apiUrl: document.body.dataset.apiUrl, fetchSession, tools, signal, audio });
  call.on("state", showState);
  call.on("turns", showTurns);
  call.on("results", showResults);
  return call;
});
