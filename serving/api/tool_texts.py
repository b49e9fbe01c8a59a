"""What language models are told of the tools; MCP server and OpenAI-style tools alike."""

INSTRUCTIONS = """\
Search a collection of documents. `search` gives ids, titles and beginnings; `open_document` gives a
whole text. Search, open what looks promising, and search again with other words if that was not it.
With each call say in `reasoning` what you concluded from what you read since the last call: above
all whether the document that you opened helped."""

SEARCH = """\
Find documents by meaning. Returns the best k, best first: doc_id, title, score and the beginning
of the text. Use a full question or a description of what you look for; words that the document may
contain help. To read a document use open_document with its doc_id."""

OPEN_DOCUMENT = """\
Read a whole document by the doc_id that search gave."""

QUERY = "What to look for: a question or a description, in natural language."
K = "How many documents to return."
DOC_ID = "The doc_id of a hit."
REASONING = (
    "What you thought since your last call. After opening a document: did it help, and why or why "
    "not? One or more sentences."
)
TRAJECTORY = (
    "Leave this out in the first call of a task. In later calls of the same task repeat the "
    "trajectory_id that the last result gave."
)
