"""What a direct tool call with raw bytes consists of.

The call itself is JSON in a header, and so is what the tool returns beside bytes. What a command returns beside its
output is known only after that, so it follows the output, as JSON and the length of that JSON.

Only the local runtime takes such calls. It says so in the schema of each tool that it takes them for (`RAW_BODY`).
"""

import struct

CONTENT_TYPE = "application/octet-stream"
CALL_HEADER = "x-tool-call"  # JSON: the name of the tool, and its arguments without the bytes
RESULT_HEADER = "x-tool-result"
RESULT_LENGTH = struct.Struct(">I")
RAW_BODY = "x-raw-body"  # a keyword in the schema of a tool
