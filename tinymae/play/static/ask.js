// The way from the page to tinymae: the server that sent the page, or Pyodide in this browser. Both give the same answers.
const token = new URLSearchParams(location.search).get("token");

export async function ask(name, question) {
  const answer = window.askPyodide
    ? JSON.parse(await window.askPyodide(name, JSON.stringify(question)))
    : await (await fetch(`api/${name}`, {
        method: "POST", headers: {"Content-Type": "application/json", "X-Token": token}, body: JSON.stringify(question),
      })).json();
  if (answer.error) throw new Error(answer.error);
  return answer;
}
