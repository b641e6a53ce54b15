"""What a direct tool call with raw bytes has in its headers.

Only the local runtime takes such calls. It says so in the schema of each tool that it takes them for (`RAW_BODY`).
"""

CONTENT_TYPE = "application/octet-stream"
CALL_HEADER = "x-tool-call"  # JSON: the name of the tool, and its arguments without the bytes
RESULT_HEADER = "x-tool-result"  # JSON: what the tool returns beside the bytes
RAW_BODY = "x-raw-body"  # a keyword in the schema of a tool
