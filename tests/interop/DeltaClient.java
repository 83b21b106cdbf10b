import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Security;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertStore;
import java.security.cert.CertificateFactory;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXParameters;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.bouncycastle.jcajce.PKIXExtendedParameters;
import org.bouncycastle.jce.provider.BouncyCastleProvider;

/**
 * Has BouncyCastle combine CRLs: arguments CA, leaf, CRL files; "good" if it takes the path.
 */
final class DeltaClient {
    public static void main(String[] files) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        List<Object> lists = new ArrayList<>();
        for (int at = 2; at < files.length; at++) {
            lists.add(factory.generateCRL(bytes(files[at])));
        }
        X509Certificate ca = (X509Certificate) factory.generateCertificate(bytes(files[0]));
        X509Certificate leaf = (X509Certificate) factory.generateCertificate(bytes(files[1]));
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(ca, null)));
        parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(lists)));
        try {
            CertPathValidator.getInstance("PKIX", "BC").validate(
                factory.generateCertPath(List.of(leaf)),
                new PKIXExtendedParameters.Builder(parameters).setUseDeltasEnabled(true).build());
            System.out.println("good");
        } catch (CertPathValidatorException failure) {
            System.out.println(String.valueOf(failure.getMessage()).replace('\n', ' '));
        }
    }

    private static ByteArrayInputStream bytes(String file) throws Exception {
        return new ByteArrayInputStream(Files.readAllBytes(Path.of(file)));
    }
}
