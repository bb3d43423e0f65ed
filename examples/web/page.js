import { startCall } from "/@pi-voice/client/index.js"; // with a bundler: from "@pi-voice/client"
import { answerOf, onStart, showControls, showResults, showState, showTable, showTurns } from "/view.js";

const apiUrl = document.body.dataset.apiUrl; // where Pi Voice is
const fetchSession = async (signal) => answerOf(await fetch("/session", { method: "POST", signal }));
const tools = { show_table: ({ area }) => showTable({ table: "T12", area }) }; // what the agent may do on the page

onStart(async (signal) => {
  const call = await startCall({ apiUrl, fetchSession, tools, signal });
  call.on("state", showState);
  call.on("turns", showTurns);
  call.on("results", showResults);
  showControls(call);
});
