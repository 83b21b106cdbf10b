import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Provider;
import java.security.SecureRandom;
import java.security.Security;
import java.security.cert.CertPath;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertStore;
import java.security.cert.CertificateFactory;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.Extension;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Asks the PKIXRevocationChecker of a provider (SUN, BC) about certificates: a line "MODE ANCHORS LEAF"
 * each on standard input, a line with what it said each on standard output, "good" if it took the path.
 *
 * MODE: get (OCSP at the certificate's URL), nonce (the same with one of 32 octets), post:URL (OCSP at a
 * URL so long that GET would pass 255 characters), crl (from the certificate's distribution point),
 * response:FILE (this OCSP response), list:FILE (this CRL); never the other kind instead.
 * ANCHORS: files with comma between them.
 */
final class PathClient {
    private final String provider;

    private PathClient(String provider) {
        this.provider = provider;
    }

    public static void main(String[] arguments) throws Exception {
        String provider = arguments[0];
        if (provider.equals("BC")) {
            // By name, so that this compiles without it.
            String name = "org.bouncycastle.jce.provider.BouncyCastleProvider";
            Security.addProvider((Provider) Class.forName(name).getConstructor().newInstance());
        }
        PathClient client = new PathClient(provider);
        for (String line : new String(System.in.readAllBytes()).split("\n")) {
            String[] words = line.split(" ");
            Set<TrustAnchor> anchors = new HashSet<>();
            for (String file : words[1].split(",")) {
                anchors.add(new TrustAnchor(certificate(file), null));
            }
            System.out.println(client.ask(words[0], anchors, certificate(words[2])));
        }
    }

    private String ask(String mode, Set<TrustAnchor> anchors, X509Certificate leaf) throws Exception {
        CertPathValidator validator = CertPathValidator.getInstance("PKIX", provider);
        PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
        PKIXParameters parameters = new PKIXParameters(anchors);
        Set<PKIXRevocationChecker.Option> options = EnumSet.of(PKIXRevocationChecker.Option.NO_FALLBACK);
        String given = mode.substring(mode.indexOf(':') + 1);
        if (mode.equals("crl")) {
            options.add(PKIXRevocationChecker.Option.PREFER_CRLS);
        } else if (mode.startsWith("list:")) {
            options.add(PKIXRevocationChecker.Option.PREFER_CRLS);
            Object list = CertificateFactory.getInstance("X.509").generateCRL(bytes(given));
            CollectionCertStoreParameters all = new CollectionCertStoreParameters(List.of(list));
            parameters.addCertStore(CertStore.getInstance("Collection", all));
        } else if (mode.equals("nonce")) {
            checker.setOcspExtensions(List.of(new Nonce()));
        } else if (mode.startsWith("response:")) {
            checker.setOcspResponses(Map.of(leaf, Files.readAllBytes(Path.of(given))));
        } else if (mode.startsWith("post:")) {
            checker.setOcspResponder(URI.create(given));
        }
        checker.setOptions(options);
        parameters.addCertPathChecker(checker);
        CertPath path = CertificateFactory.getInstance("X.509").generateCertPath(List.of(leaf));
        try {
            validator.validate(path, parameters);
            return "good";
        } catch (CertPathValidatorException failure) {
            return failure.getReason() + " " + String.valueOf(failure.getMessage()).replace('\n', ' ');
        }
    }

    private static X509Certificate certificate(String file) throws Exception {
        return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(bytes(file));
    }

    private static ByteArrayInputStream bytes(String file) throws IOException {
        return new ByteArrayInputStream(Files.readAllBytes(Path.of(file)));
    }

    /** The nonce extension, with 32 random octets (RFC 9654). */
    private static final class Nonce implements Extension {
        // OCTET STRING of 32.
        private final byte[] value = new byte[34];

        Nonce() {
            new SecureRandom().nextBytes(value);
            value[0] = 4;
            value[1] = 32;
        }

        @Override
        public String getId() {
            return "1.3.6.1.5.5.7.48.1.2";
        }

        @Override
        public boolean isCritical() {
            return false;
        }

        @Override
        public byte[] getValue() {
            return value.clone();
        }

        @Override
        public void encode(OutputStream out) throws IOException {
            // SEQUENCE { that OID, OCTET STRING { value } }
            out.write(new byte[] {0x30, 0x2f, 6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2, 4, 34});
            out.write(value);
        }
    }
}
