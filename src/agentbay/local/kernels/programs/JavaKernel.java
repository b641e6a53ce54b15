// The Java kernel: JShell, connected to a socket (descriptor 0). connection.py describes the frames.

import java.io.*;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.*;
import java.util.regex.*;
import java.util.stream.Collectors;
import jdk.jshell.*;
import jdk.jshell.Snippet.SubKind;

public class JavaKernel {
    private static final int MAX_DISPLAY_CHARS = 4 << 20; // at most 24 MiB, as an escape takes 6 bytes
    private static final int MAX_ERROR_CHARS = 256 * 1024; // kept of the message of an error, and of its traceback
    private static final Pattern JSON_STRING = Pattern.compile("\"((?:[^\"\\\\]|\\\\.)*+)\"");
    private static final String[] IMPORTS = {
        "java.io.*", "java.math.*", "java.net.*", "java.nio.file.*", "java.util.*", "java.util.concurrent.*",
        "java.util.function.*", "java.util.regex.*", "java.util.stream.*",
    };
    private static final InputStream in = new BufferedInputStream(new FileInputStream(FileDescriptor.in));
    private static final OutputStream out = new FileOutputStream(FileDescriptor.in);
    private static int count;
    private static boolean running;
    private static volatile boolean interrupted;

    public static void main(String[] arguments) throws Exception {
        // Standard input is the socket: code that reads it would take requests away.
        System.setIn(InputStream.nullInputStream());
        JShell shell = JShell.builder().executionEngine("local").build();
        for (String name : IMPORTS) shell.eval("import " + name + ";");
        ExecutorService worker = Executors.newSingleThreadExecutor(task -> {
            Thread thread = new Thread(task, "code");
            thread.setDaemon(true);
            return thread;
        });
        send("\"event\": \"ready\", \"pid\": " + ProcessHandle.current().pid());
        while (true) {
            String request = receive();
            if (request == null) System.exit(0);
            // a request to run code holds only strings: "code", the code, "env", then names and values
            List<String> texts = JSON_STRING.matcher(request).results().map(found -> unescaped(found.group(1))).toList();
            if (texts.get(0).equals("code")) {
                setRunning(true);
                for (int i = 3; i < texts.size(); i += 2) environment().put(texts.get(i), texts.get(i + 1));
                worker.submit(() -> run(shell, texts.get(1)));
            } else {
                interrupted = true;
                new Thread(() -> { while (stop(shell)) pause(); }).start();
            }
        }
    }

    /** Return the map behind System.getenv(), which Java does not let anybody change. */
    @SuppressWarnings("unchecked")
    private static Map<String, String> environment() throws ReflectiveOperationException {
        Field known = Class.forName("java.lang.ProcessEnvironment").getDeclaredField("theEnvironment");
        Constructor<?> view = Class.forName("java.lang.ProcessEnvironment$StringEnvironment").getConstructor(Map.class);
        known.setAccessible(true);
        view.setAccessible(true);
        return (Map<String, String>) view.newInstance(known.get(null));
    }

    private static synchronized void setRunning(boolean now) {
        running = now;
        if (now) interrupted = false;
    }

    /** Stop the running code, or return false if none runs. While JShell compiles, this has no effect: try again. */
    private static synchronized boolean stop(JShell shell) {
        if (running && interrupted) shell.stop();
        return running && interrupted;
    }

    private static void pause() {
        try {
            Thread.sleep(50);
        } catch (InterruptedException ignored) { // nobody interrupts this thread
        }
    }

    private static void run(JShell shell, String code) {
        count++;
        try {
            evaluate(shell, code);
        } catch (Throwable error) {
            sendError(error.getClass().getSimpleName(), String.valueOf(error.getMessage()), "");
        }
        System.out.flush();
        System.err.flush();
        setRunning(false);
        send("\"event\": \"done\", \"count\": " + count);
    }

    private static void evaluate(JShell shell, String code) {
        String rest = code;
        while (!rest.isBlank()) {
            SourceCodeAnalysis.CompletionInfo info = shell.sourceCodeAnalysis().analyzeCompletion(rest);
            String source = info.completeness().isComplete() ? info.source() : rest;
            rest = info.completeness().isComplete() ? info.remaining() : "";
            for (SnippetEvent event : shell.eval(source)) {
                if (event.causeSnippet() == null && !reportSnippet(shell, event, rest.isBlank())) return;
            }
        }
    }

    private static boolean reportSnippet(JShell shell, SnippetEvent event, boolean last) {
        if (interrupted) {
            sendError("Interrupted", "the code was interrupted", "");
            return false;
        }
        if (event.status() == Snippet.Status.REJECTED) {
            String why = shell.diagnostics(event.snippet()).filter(Diag::isError)
                .map(found -> found.getMessage(Locale.ROOT)).collect(Collectors.joining("\n"));
            sendError("CompileError", why, why + "\n\n" + event.snippet().source() + "\n");
            return false;
        }
        if (event.exception() instanceof EvalException) {
            EvalException thrown = (EvalException) event.exception();
            StringWriter trace = new StringWriter();
            thrown.printStackTrace(new PrintWriter(trace));
            String name = thrown.getExceptionClassName();
            String message = thrown.getMessage() == null ? "" : thrown.getMessage();
            String head = name + (message.isEmpty() ? "" : ": " + message) + "\n";
            sendError(name.substring(name.lastIndexOf('.') + 1), message, head + trace.toString().replaceFirst("[^\n]*\n", ""));
            return false;
        }
        if (event.exception() != null) {
            sendError("UnresolvedReference", String.valueOf(event.exception().getMessage()), "");
            return false;
        }
        SubKind kind = event.snippet().subKind();
        boolean shown = kind == SubKind.TEMP_VAR_EXPRESSION_SUBKIND || kind == SubKind.VAR_VALUE_SUBKIND;
        if (last && shown && event.value() != null) {
            String value = event.value();
            if (value.length() > MAX_DISPLAY_CHARS) {
                value = "[left out: " + value.length() + " characters are more than can be shown]";
            }
            send("\"event\": \"result\", \"main\": true, \"data\": {\"text/plain\": " + quoted(value) + "}");
        }
        return true;
    }

    private static void sendError(String name, String value, String traceback) {
        send("\"event\": \"error\", \"name\": " + quoted(name) + ", \"value\": " + quoted(shorten(value))
            + ", \"traceback\": " + quoted(shorten(traceback)));
    }

    /** Cut the middle out of a long text. */
    private static String shorten(String text) {
        if (text.length() <= MAX_ERROR_CHARS) return text;
        int half = MAX_ERROR_CHARS / 2;
        return text.substring(0, half) + "\n[cut: " + (text.length() - 2 * half) + " characters]\n"
            + text.substring(text.length() - half);
    }

    private static synchronized void send(String fields) {
        byte[] body = ("{" + fields + "}").getBytes(StandardCharsets.UTF_8);
        ByteBuffer frame = ByteBuffer.allocate(4 + body.length).order(ByteOrder.LITTLE_ENDIAN).putInt(body.length).put(body);
        try {
            out.write(frame.array());
        } catch (IOException gone) {
            Runtime.getRuntime().halt(1);
        }
    }

    private static String receive() throws IOException {
        byte[] head = in.readNBytes(4);
        if (head.length < 4) return null;
        int size = ByteBuffer.wrap(head).order(ByteOrder.LITTLE_ENDIAN).getInt();
        return new String(in.readNBytes(size), StandardCharsets.UTF_8);
    }

    private static String quoted(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') json.append('\\').append(c);
            else if (c < ' ' || c > '~') json.append(String.format("\\u%04x", (int) c));
            else json.append(c);
        }
        return json.append('"').toString();
    }

    private static String unescaped(String json) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < json.length(); i++) {
            char c = json.charAt(i);
            if (c != '\\') {
                text.append(c);
                continue;
            }
            char kind = json.charAt(++i);
            if (kind == 'u') {
                text.append((char) Integer.parseInt(json.substring(i + 1, i + 5), 16));
                i += 4;
            } else {
                int known = "bfnrt".indexOf(kind);
                text.append(known < 0 ? kind : "\b\f\n\r\t".charAt(known));
            }
        }
        return text.toString();
    }
}
