// Java 17 or later, nothing else: FHIRSIM_SERVER=http://127.0.0.1:8080 java testkits/java/Example.java
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;

public class Example {
    static final String SERVER = System.getenv().getOrDefault("FHIRSIM_SERVER", "http://127.0.0.1:8080");
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    static HttpResponse<String> send(String method, String url, String body) throws Exception {
        var publisher = body == null ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofString(body);
        var request = HttpRequest.newBuilder(URI.create(url)).method(method, publisher).header("Content-Type", "application/fhir+json").build();
        return CLIENT.send(request, HttpResponse.BodyHandlers.ofString());
    }

    public static void main(String[] arguments) throws Exception {
        var sims = SERVER + "/api/sims";
        send("DELETE", sims + "/java__patient", null);
        send("POST", sims, "{\"id\":\"java__patient\"}");
        send("POST", sims + "/java__patient/markers", "{\"name\":\"start\"}");
        // Stands for the system under test.
        var app = new Thread(() -> {
            try {
                send("POST", SERVER + "/sim/java__patient/fhir/Patient", "{\"resourceType\":\"Patient\",\"name\":[{\"family\":\"Chalmers\"}]}");
            } catch (Exception e) {
                throw new RuntimeException(e);
            }
        });
        app.start();
        var condition = URLEncoder.encode("name.family = 'Chalmers'", StandardCharsets.UTF_8);
        var events = send("GET", sims + "/java__patient/events?since=marker:start&type=Patient&status=201&wait=30s&request=" + condition, null).body();
        app.join();
        if (events.contains("\"timedOut\":true") || !events.contains("\"interaction\":\"create\"")) {
            throw new AssertionError(events);
        }
        System.out.println("the app posted a patient");
    }
}
