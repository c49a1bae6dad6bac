// The way from the page to tinymae: the server that sent the page, or Pyodide in this browser (pyodide.js, which comes before).
// Both give the same answers.
const token = new URLSearchParams(location.search).get("token") ?? "";

export async function ask(name, question) {
  const answer = JSON.parse(await (window.askPyodide ?? askServer)(name, JSON.stringify(question)));
  if (answer.error !== undefined) throw new Error(answer.error);
  return answer;
}

async function askServer(name, question) {
  const headers = {"Content-Type": "application/json", "X-Token": token};
  const answer = await fetch(`api/${name}`, {method: "POST", headers, body: question}).catch(() => null);
  if (!answer) throw new Error("unreachable");                  // app.js has the sentence, in two languages
  return answer.text();
}
