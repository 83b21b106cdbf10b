// Asks golang.org/x/crypto/ocsp about certificates: a line "MODE URL CA LEAF" each on standard input,
// a line with what it said each on standard output.  MODE: post, get, sha256 (post), crl (URL of a CRL),
// response (an OCSP response in the file URL).
package main

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		verdict, err := ask(words[0], words[1], read(words[2]), read(words[3]))
		if err != nil {
			verdict = "error " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(verdict)
	}
}

func ask(mode, url string, ca, leaf *x509.Certificate) (string, error) {
	if mode == "crl" {
		return askCRL(url, ca, leaf)
	}
	if mode == "response" {
		content, err := os.ReadFile(url)
		if err != nil {
			return "", err
		}
		return status(content, ca, leaf)
	}
	hash := crypto.SHA1
	if mode == "sha256" {
		hash = crypto.SHA256
	}
	request, err := ocsp.CreateRequest(leaf, ca, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		return "", err
	}
	var answer *http.Response
	if mode == "get" {
		// As the package's users write it: base64 as it is, '+', '/' and '=' included.
		answer, err = http.Get(url + "/" + base64.StdEncoding.EncodeToString(request))
	} else {
		answer, err = http.Post(url, "application/ocsp-request", bytes.NewReader(request))
	}
	content, err := body(answer, err)
	if err != nil {
		return "", err
	}
	return status(content, ca, leaf)
}

func status(content []byte, ca, leaf *x509.Certificate) (string, error) {
	response, err := ocsp.ParseResponseForCert(content, leaf, ca)
	if err != nil {
		return "", err
	}
	// The package leaves both of these to its user.
	if time.Now().After(response.NextUpdate) || time.Now().Add(time.Minute).Before(response.ThisUpdate) {
		return "outdated", nil
	}
	return map[int]string{ocsp.Good: "good", ocsp.Revoked: "revoked", ocsp.Unknown: "unknown"}[response.Status], nil
}

func askCRL(url string, ca, leaf *x509.Certificate) (string, error) {
	content, err := body(http.Get(url))
	if err != nil {
		return "", err
	}
	list, err := x509.ParseRevocationList(content)
	if err != nil {
		return "", err
	}
	if err := list.CheckSignatureFrom(ca); err != nil {
		return "", err
	}
	if time.Now().After(list.NextUpdate) {
		return "outdated", nil
	}
	for _, entry := range list.RevokedCertificates {
		if entry.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
			return "revoked", nil
		}
	}
	return "good", nil
}

func body(answer *http.Response, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP %s", answer.Status)
	}
	return io.ReadAll(answer.Body)
}

func read(file string) *x509.Certificate {
	content, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	block, _ := pem.Decode(content)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		panic(err)
	}
	return certificate
}
