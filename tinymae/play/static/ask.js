// The way from the page to tinymae: the server that sent the page, or Pyodide in this browser (pyodide.js, which comes before).
// Both give the same answers, with sentences in "language", "en" or "zh".
const token = new URLSearchParams(location.search).get("token") ?? "";

export async function ask(name, question, language) {
  const answer = JSON.parse(await (window.askPyodide ?? askServer)(name, JSON.stringify(question), language));
  if (answer.error !== undefined) throw new Error(answer.error);
  return answer;
}

async function askServer(name, question, language) {
  const headers = {"Content-Type": "application/json", "X-Token": token, "Accept-Language": language};
  const answer = await fetch(`api/${name}`, {method: "POST", headers, body: question}).catch(() => null);
  if (!answer) throw new Error("unreachable");                  // app.js has the sentence, in two languages
  return answer.text();
}
