// How search orders what it finds: a lesson first, then other pages, then functions. The numbers below `score` are Sphinx's own.
var Scorer = {
  score: ([docname, title, anchor, descr, score]) =>
    docname.startsWith("lessons/") ? score + 20 : docname.startsWith("api/") ? score - 5 : score,
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: {0: 15, 1: 5, 2: -5},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
