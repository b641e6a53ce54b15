# The R kernel, in base R alone. connection.py describes the frames.
#
# The socket is descriptor 3. R cannot open a descriptor, so two cat processes connect it to pipes. The loader has opened
# `incoming` and read this program from it.

# cat ignores SIGINT, since an interrupt goes to the whole process group.
outgoing <- pipe("trap '' INT; exec cat >&3", "wb")
max_display_bytes <- 24 * 2^20 # of all forms of one display; the service takes frames of up to 32 MiB
max_error_chars <- 256 * 1024 # kept of the message of an error, and of its traceback
escapes <- list("\\" = "\\\\", "\"" = "\\\"")
for (code in 1:31) escapes[[rawToChar(as.raw(code))]] <- sprintf("\\u%04x", code)

json_string <- function(text) {
  text <- enc2utf8(text)
  if (!validUTF8(text)) text <- iconv(text, "UTF-8", "UTF-8", sub = "byte")
  for (found in names(escapes)) text <- gsub(found, escapes[[found]], text, fixed = TRUE)
  paste0("\"", text, "\"")
}

json <- function(value) {
  if (is.null(value)) {
    "null"
  } else if (is.list(value) || length(value) != 1) {
    items <- vapply(as.list(value), json, "")
    if (is.null(names(value))) return(paste0("[", paste(items, collapse = ", "), "]"))
    paste0("{", paste0(vapply(names(value), json_string, ""), ": ", items, collapse = ", "), "}")
  } else if (is.logical(value) && !is.na(value)) {
    tolower(value)
  } else if (is.numeric(value) && !is.factor(value)) {
    if (is.finite(value)) format(value, digits = 15) else "null"
  } else {
    if (is.na(value)) "null" else json_string(as.character(value))
  }
}

# An interrupt in the middle would leave half a frame, and the service would misread all that follows.
send <- function(event, ...) suspendInterrupts({
  body <- charToRaw(json(list(event = event, ...)))
  writeBin(length(body), outgoing, 4, endian = "little")
  writeBin(body, outgoing)
  flush(outgoing)
})

# Every value of a request is a string, and a JSON string is a string literal of R too.
receive <- function() {
  size <- readBin(incoming, "integer", 1, 4, endian = "little")
  if (length(size) == 0) quit("no")
  text <- rawToChar(readBin(incoming, "raw", size))
  regmatches(text, gregexpr("\"(?:[^\"\\\\]++|\\\\.)*+\"", text, perl = TRUE))[[1]]
}

decoded <- function(literal) eval(parse(text = literal, keep.source = FALSE))

base64 <- function(bytes) {
  padding <- -length(bytes) %% 3
  triples <- matrix(as.integer(c(bytes, raw(padding))), 3)
  first <- triples[1, ]; second <- triples[2, ]; third <- triples[3, ]
  sixes <- rbind(first %/% 4, first %% 4 * 16 + second %/% 16, second %% 16 * 4 + third %/% 64, third %% 64)
  letters <- c(LETTERS, letters, 0:9, "+", "/")[sixes + 1]
  if (padding) letters[length(letters) - seq_len(padding) + 1] <- "="
  paste(letters, collapse = "")
}

send_display <- function(forms, main = FALSE) {
  sizes <- vapply(forms, function(form) sum(as.numeric(nchar(unlist(form), "bytes"))), 0)
  if (sum(sizes) > max_display_bytes) {
    forms <- list("text/plain" = sprintf("[left out: %.0f bytes are more than can be shown]", max(sizes)))
  }
  send("result", data = forms, main = main)
}

as_html <- function(frame) {
  rows <- utils::head(frame, 60)[seq_len(min(ncol(frame), 30))]
  escape <- function(text) gsub("<", "&lt;", gsub("&", "&amp;", text, fixed = TRUE), fixed = TRUE)
  line <- function(tag, cells) paste0("<", tag, ">", escape(cells), "</", tag, ">", collapse = "")
  cells <- cbind(row.names(rows), as.matrix(format(rows)))
  body <- apply(cells, 1, function(row) paste0("<tr>", line("th", row[1]), line("td", row[-1]), "</tr>"))
  head <- paste0("<thead><tr>", line("th", c("", names(rows))), "</tr></thead>")
  size <- if (!identical(dim(rows), dim(frame))) sprintf("<p>%d rows, %d columns</p>", nrow(frame), ncol(frame))
  paste(c("<table>", head, "<tbody>", body, "</tbody></table>", size), collapse = "\n")
}

show_value <- function(value, main) {
  text <- utils::capture.output(if (isS4(value)) methods::show(value) else print(value))
  if (length(text) == 0) return() # such as a plot, which is shown later
  forms <- list("text/plain" = paste(text, collapse = "\n"))
  if (is.data.frame(value)) forms[["text/html"]] <- tryCatch(as_html(value), error = function(odd) NULL)
  send_display(forms, main)
}

plots <- tempfile("plots")
dir.create(plots)
opened <- 0
device <- NULL
open_device <- function(...) {
  opened <<- opened + 1
  pages <- file.path(plots, sprintf("%06d-%%06d.png", opened))
  grDevices::png(pages, 800, 600, res = 110, type = if (capabilities("cairo")) "cairo" else getOption("bitmapType"))
  device <<- grDevices::dev.cur()
}

show_plots <- function() {
  if (!is.null(device) && device %in% grDevices::dev.list()) grDevices::dev.off(device)
  device <<- NULL
  for (file in list.files(plots, full.names = TRUE)) {
    send_display(list("image/png" = base64(readBin(file, "raw", file.size(file)))))
    unlink(file)
  }
}

shorten <- function(text) {
  size <- nchar(text, allowNA = TRUE)
  if (is.na(size) || size <= max_error_chars) return(text)
  half <- max_error_chars / 2
  sprintf("%s\n[cut: %.0f characters]\n%s", substr(text, 1, half), size - 2 * half, substr(text, size - half + 1, size))
}

send_error <- function(name, value, traceback = "") {
  send("error", name = name, value = shorten(value), traceback = shorten(traceback))
}

eval_call <- quote(eval(parsed[[i]], globalenv())) # the call of an error outside all functions

explain <- function(error, calls) {
  message <- conditionMessage(error)
  call <- conditionCall(error)
  place <- if (is.null(call) || identical(call, eval_call)) "" else paste(" in", deparse(call)[1])
  steps <- vapply(utils::head(calls, 40), function(call) substr(deparse(call, nlines = 1)[1], 1, 200), "")
  trace <- if (length(steps)) c("Traceback:", paste0(seq_along(steps), ". ", steps))
  name <- sub("^simpleError$", "Error", class(error)[1])
  send_error(name, message, paste0(paste(c(paste0("Error", place, ": ", message), trace), collapse = "\n"), "\n"))
}

# The calls between the code and the handler of its error.
user_calls <- function(calls, depth) {
  calls <- calls[seq_len(length(calls) - 1)]
  if (length(calls) && identical(calls[[length(calls)]][[1]], quote(.handleSimpleError))) calls <- calls[-length(calls)]
  calls[seq_along(calls) > depth]
}

run <- function(literal) {
  parsed <- tryCatch(parse(text = decoded(literal), keep.source = FALSE), error = identity)
  if (inherits(parsed, "error")) {
    why <- conditionMessage(parsed)
    return(send_error("ParseError", why, paste0(why, "\n")))
  }
  depth <- sys.nframe() + 4 # withCallingHandlers, withVisible, eval twice
  for (i in seq_along(parsed)) {
    outcome <- withCallingHandlers(withVisible(eval(parsed[[i]], globalenv())), error = function(error) {
      calls <<- user_calls(sys.calls(), depth)
    })
    if (outcome$visible) show_value(outcome$value, i == length(parsed))
  }
}

calls <- NULL # of the last error
run_cell <- function(literal) {
  calls <<- NULL
  interrupted <- function(condition) send_error("Interrupted", "the code was interrupted")
  tryCatch(allowInterrupts({ send("begin"); run(literal) }), error = function(error) explain(error, calls), interrupt = interrupted)
  tryCatch(show_plots(), error = function(error) explain(error, NULL))
}

displays <- c(
  html = "text/html", markdown = "text/markdown", latex = "text/latex", svg = "image/svg+xml", png = "image/png",
  jpeg = "image/jpeg", json = "application/json", vega = "application/vnd.vegalite.v5+json"
)
helpers <- lapply(displays, function(mime) function(content) {
  send_display(structure(list(if (is.raw(content)) base64(content) else content), names = mime))
})
attach(structure(helpers, names = paste0("display_", names(displays))), name = "agentbay")
options(warn = 1) # warnings at once: R would print them at the end of a program
if (capabilities("png")) options(device = open_device)

count <- 0L
send("ready", pid = Sys.getpid())
suspendInterrupts(repeat {
  request <- receive()
  tryCatch(allowInterrupts(Sys.sleep(0)), interrupt = function(late) NULL) # an interrupt that came after its cell
  variables <- vapply(request[-(1:3)], decoded, "")
  named <- seq_along(variables) %% 2 == 1
  if (length(variables)) do.call(Sys.setenv, structure(as.list(variables[!named]), names = variables[named]))
  run_cell(request[2])
  count <- count + 1L
  send("done", count = count)
})
